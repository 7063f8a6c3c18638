# cadef.h: the Channel Access client library, as C declares it.
#
# Only what a core built on callbacks and one preemptive context needs. The calls that block
# or that write into the caller's memory (ca_array_get, ca_sg_*, ca_pend_io, ca_pend_event,
# ca_test_io) and the macros that print or abort (SEVCHK) are left out on purpose.

from db_access cimport epicsTimeStamp  # noqa: F401  (the header comes with cadef.h)


cdef extern from "stdarg.h" nogil:
    ctypedef struct va_list:
        pass


cdef extern from "caeventmask.h" nogil:
    enum:
        DBE_VALUE
        DBE_ARCHIVE
        DBE_LOG
        DBE_ALARM
        DBE_PROPERTY


cdef extern from "cadef.h" nogil:
    struct oldChannelNotify:
        pass

    struct oldSubscription:
        pass

    struct ca_client_context:
        pass

    ctypedef oldChannelNotify *chid
    ctypedef chid chanId
    ctypedef long chtype
    ctypedef oldSubscription *evid
    ctypedef double ca_real
    ctypedef unsigned capri

    struct connection_handler_args:
        chanId chid
        long op

    ctypedef void caCh(connection_handler_args args) noexcept nogil

    ctypedef struct caar:
        unsigned read_access
        unsigned write_access

    struct access_rights_handler_args:
        chanId chid
        caar ar

    ctypedef void caArh(access_rights_handler_args args) noexcept nogil

    # the C tag is event_handler_args; both names are usable
    ctypedef struct evargs:
        void *usr
        chanId chid
        long type
        long count
        const void *dbr
        int status

    struct event_handler_args:
        void *usr
        chanId chid
        long type
        long count
        const void *dbr
        int status

    ctypedef void caEventCallBackFunc(event_handler_args args) noexcept nogil

    struct exception_handler_args:
        void *usr
        chanId chid
        long type
        long count
        void *addr
        long stat
        long op
        const char *ctx
        const char *pFile
        unsigned lineNo

    ctypedef void caExceptionHandler(exception_handler_args args) noexcept nogil
    ctypedef int caPrintfFunc(const char *pformat, va_list args) noexcept nogil

    enum:
        CA_OP_GET
        CA_OP_PUT
        CA_OP_CREATE_CHANNEL
        CA_OP_ADD_EVENT
        CA_OP_CLEAR_EVENT
        CA_OP_OTHER
        CA_OP_CONN_UP
        CA_OP_CONN_DOWN

    enum:
        TYPENOTCONN

    enum:
        CA_PRIORITY_MAX
        CA_PRIORITY_MIN
        CA_PRIORITY_DEFAULT
        CA_PRIORITY_DB_LINKS
        CA_PRIORITY_ARCHIVE
        CA_PRIORITY_OPI

    enum channel_state:
        cs_never_conn
        cs_prev_conn
        cs_conn
        cs_closed

    enum ca_preemptive_callback_select:
        ca_disable_preemptive_callback
        ca_enable_preemptive_callback

    # What a channel says of itself: any thread, no context needed.
    short ca_field_type(chid chan)
    unsigned long ca_element_count(chid chan)
    const char *ca_name(chid chan)
    void *ca_puser(chid chan)
    unsigned ca_read_access(chid chan)
    unsigned ca_write_access(chid chan)
    channel_state ca_state(chid chan)
    unsigned ca_get_host_name(chid pChan, char *pBuf, unsigned bufLength)
    unsigned ca_host_minor_protocol(chid pChan)
    unsigned ca_search_attempts(chid chan)
    double ca_beacon_period(chid chan)
    double ca_receive_watchdog_delay(chid chan)
    int ca_v42_ok(chid chan)

    # Contexts: these look at the calling thread.
    int ca_context_create(ca_preemptive_callback_select select)
    void ca_detach_context()
    void ca_context_destroy()
    ca_client_context *ca_current_context()
    int ca_attach_context(ca_client_context *context)
    int ca_context_status(ca_client_context *context, unsigned level)
    int ca_client_status(unsigned level)
    int ca_preemtive_callback_is_enabled()
    unsigned ca_get_ioc_connection_count()
    unsigned ca_beacon_anomaly_count()
    int ca_add_exception_event(caExceptionHandler *pfunc, void *pArg)
    int ca_replace_printf_handler(caPrintfFunc *ca_printf_func)
    int ca_flush_io()

    # Channels.
    int ca_create_channel(
        const char *pChanName, caCh *pConnStateCallback, void *pUserPrivate,
        capri priority, chid *pChanID)
    int ca_change_connection_event(chid chan, caCh *pfunc)
    int ca_replace_access_rights_event(chid chan, caArh *pfunc)
    int ca_clear_channel(chid chanId)

    # Data.
    int ca_array_put(chtype type, unsigned long count, chid chanId, const void *pValue)
    int ca_array_put_callback(
        chtype type, unsigned long count, chid chanId, const void *pValue,
        caEventCallBackFunc *pFunc, void *pArg)
    int ca_array_get_callback(
        chtype type, unsigned long count, chid chanId,
        caEventCallBackFunc *pFunc, void *pArg)
    int ca_create_subscription(
        chtype type, unsigned long count, chid chanId, long mask,
        caEventCallBackFunc *pFunc, void *pArg, evid *pEventID)
    int ca_clear_subscription(evid eventID)
    chid ca_evid_to_chid(evid id)

    const char *ca_version()
