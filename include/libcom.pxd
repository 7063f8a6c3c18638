# libCom: the few parts of EPICS base's portable library that a client needs, as C declares them.

from db_access cimport epicsTimeStamp  # noqa: F401


cdef extern from "errlog.h" nogil:
    ctypedef void (*errlogListener)(void *pPrivate, const char *message) noexcept nogil

    ctypedef enum errlogSevEnum:
        errlogInfo
        errlogMinor
        errlogMajor
        errlogFatal

    void errlogAddListener(errlogListener listener, void *pPrivate)
    int errlogRemoveListeners(errlogListener listener, void *pPrivate)
    int eltc(int yesno)
    int errlogInit2(int bufsize, int maxMsgSize)
    int errlogMessage(const char *message)
    void errlogFlush()
    void errlogSetSevToLog(errlogSevEnum severity)


cdef extern from "envDefs.h" nogil:
    ctypedef struct ENV_PARAM:
        char *name
        char *pdflt

    const ENV_PARAM EPICS_CA_ADDR_LIST
    const ENV_PARAM EPICS_CA_CONN_TMO
    const ENV_PARAM EPICS_CA_AUTO_ADDR_LIST
    const ENV_PARAM EPICS_CA_REPEATER_PORT
    const ENV_PARAM EPICS_CA_SERVER_PORT
    const ENV_PARAM EPICS_CA_MAX_ARRAY_BYTES
    const ENV_PARAM EPICS_CA_AUTO_ARRAY_BYTES
    const ENV_PARAM EPICS_CA_MAX_SEARCH_PERIOD
    const ENV_PARAM EPICS_CA_NAME_SERVERS

    char *envGetConfigParam(const ENV_PARAM *pParam, int bufDim, char *pBuf)
    const char *envGetConfigParamPtr(const ENV_PARAM *pParam)
    unsigned short envGetInetPortConfigParam(const ENV_PARAM *pEnv, unsigned short defaultPort)
    void epicsEnvSet(const char *name, const char *value)
    void epicsEnvUnset(const char *name)


cdef extern from "epicsTime.h" nogil:
    enum:
        POSIX_TIME_AT_EPICS_EPOCH

    int epicsTimeGetCurrent(epicsTimeStamp *pDest)


cdef extern from "alarm.h" nogil:
    ctypedef enum epicsAlarmSeverity:
        epicsSevNone
        epicsSevMinor
        epicsSevMajor
        epicsSevInvalid
        ALARM_NSEV

    ctypedef enum epicsAlarmCondition:
        epicsAlarmNone
        epicsAlarmRead
        epicsAlarmWrite
        epicsAlarmHiHi
        epicsAlarmHigh
        epicsAlarmLoLo
        epicsAlarmLow
        epicsAlarmState
        epicsAlarmCos
        epicsAlarmComm
        epicsAlarmTimeout
        epicsAlarmHwLimit
        epicsAlarmCalc
        epicsAlarmScan
        epicsAlarmLink
        epicsAlarmSoft
        epicsAlarmBadSub
        epicsAlarmUDF
        epicsAlarmDisable
        epicsAlarmSimm
        epicsAlarmReadAccess
        epicsAlarmWriteAccess
        ALARM_NSTATUS


cdef extern from "epicsVersion.h" nogil:
    const char *EPICS_VERSION_STRING
    enum:
        EPICS_VERSION
        EPICS_REVISION
        EPICS_MODIFICATION
