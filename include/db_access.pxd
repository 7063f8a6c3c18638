# db_access.h: the types and structures that Channel Access carries, as C declares them.
#
# Sizes and offsets come from the header (sizeof, offsetof), never from the exported tables
# dbr_size[] and dbr_value_offset[]: so nothing of EPICS needs to be linked for them.

cdef extern from "epicsTypes.h" nogil:
    ctypedef unsigned char epicsUInt8
    ctypedef short epicsInt16
    ctypedef unsigned short epicsUInt16
    ctypedef int epicsInt32
    ctypedef unsigned int epicsUInt32
    ctypedef float epicsFloat32
    ctypedef double epicsFloat64
    enum:
        MAX_STRING_SIZE
    ctypedef char epicsOldString[40]  # MAX_STRING_SIZE


cdef extern from "epicsTime.h" nogil:
    ctypedef struct epicsTimeStamp:
        epicsUInt32 secPastEpoch
        epicsUInt32 nsec


cdef extern from "db_access.h" nogil:
    enum:
        MAX_UNITS_SIZE
        MAX_ENUM_STRING_SIZE
        MAX_ENUM_STATES

    ctypedef epicsOldString dbr_string_t
    ctypedef epicsUInt8 dbr_char_t
    ctypedef epicsInt16 dbr_short_t
    ctypedef epicsUInt16 dbr_ushort_t
    ctypedef epicsInt16 dbr_int_t
    ctypedef epicsUInt16 dbr_enum_t
    ctypedef epicsInt32 dbr_long_t
    ctypedef epicsUInt32 dbr_ulong_t
    ctypedef epicsFloat32 dbr_float_t
    ctypedef epicsFloat64 dbr_double_t
    ctypedef epicsUInt16 dbr_put_ackt_t
    ctypedef epicsUInt16 dbr_put_acks_t
    ctypedef epicsOldString dbr_stsack_string_t
    ctypedef epicsOldString dbr_class_name_t

    enum:
        DBF_STRING
        DBF_INT
        DBF_SHORT
        DBF_FLOAT
        DBF_ENUM
        DBF_CHAR
        DBF_LONG
        DBF_DOUBLE
        DBF_NO_ACCESS
        LAST_TYPE

    enum:
        DBR_STRING
        DBR_INT
        DBR_SHORT
        DBR_FLOAT
        DBR_ENUM
        DBR_CHAR
        DBR_LONG
        DBR_DOUBLE
        DBR_STS_STRING
        DBR_STS_SHORT
        DBR_STS_INT
        DBR_STS_FLOAT
        DBR_STS_ENUM
        DBR_STS_CHAR
        DBR_STS_LONG
        DBR_STS_DOUBLE
        DBR_TIME_STRING
        DBR_TIME_INT
        DBR_TIME_SHORT
        DBR_TIME_FLOAT
        DBR_TIME_ENUM
        DBR_TIME_CHAR
        DBR_TIME_LONG
        DBR_TIME_DOUBLE
        DBR_GR_STRING
        DBR_GR_SHORT
        DBR_GR_INT
        DBR_GR_FLOAT
        DBR_GR_ENUM
        DBR_GR_CHAR
        DBR_GR_LONG
        DBR_GR_DOUBLE
        DBR_CTRL_STRING
        DBR_CTRL_SHORT
        DBR_CTRL_INT
        DBR_CTRL_FLOAT
        DBR_CTRL_ENUM
        DBR_CTRL_CHAR
        DBR_CTRL_LONG
        DBR_CTRL_DOUBLE
        DBR_PUT_ACKT
        DBR_PUT_ACKS
        DBR_STSACK_STRING
        DBR_CLASS_NAME
        LAST_BUFFER_TYPE

    struct dbr_sts_string:
        dbr_short_t status
        dbr_short_t severity
        dbr_string_t value

    struct dbr_stsack_string:
        dbr_ushort_t status
        dbr_ushort_t severity
        dbr_ushort_t ackt
        dbr_ushort_t acks
        dbr_string_t value

    struct dbr_sts_int:
        dbr_short_t status
        dbr_short_t severity
        dbr_short_t value

    struct dbr_sts_short:
        dbr_short_t status
        dbr_short_t severity
        dbr_short_t value

    struct dbr_sts_float:
        dbr_short_t status
        dbr_short_t severity
        dbr_float_t value

    struct dbr_sts_enum:
        dbr_short_t status
        dbr_short_t severity
        dbr_enum_t value

    struct dbr_sts_char:
        dbr_short_t status
        dbr_short_t severity
        dbr_char_t RISC_pad
        dbr_char_t value

    struct dbr_sts_long:
        dbr_short_t status
        dbr_short_t severity
        dbr_long_t value

    struct dbr_sts_double:
        dbr_short_t status
        dbr_short_t severity
        dbr_long_t RISC_pad
        dbr_double_t value

    struct dbr_time_string:
        dbr_short_t status
        dbr_short_t severity
        epicsTimeStamp stamp
        dbr_string_t value

    struct dbr_time_short:
        dbr_short_t status
        dbr_short_t severity
        epicsTimeStamp stamp
        dbr_short_t RISC_pad
        dbr_short_t value

    struct dbr_time_float:
        dbr_short_t status
        dbr_short_t severity
        epicsTimeStamp stamp
        dbr_float_t value

    struct dbr_time_enum:
        dbr_short_t status
        dbr_short_t severity
        epicsTimeStamp stamp
        dbr_short_t RISC_pad
        dbr_enum_t value

    struct dbr_time_char:
        dbr_short_t status
        dbr_short_t severity
        epicsTimeStamp stamp
        dbr_short_t RISC_pad0
        dbr_char_t RISC_pad1
        dbr_char_t value

    struct dbr_time_long:
        dbr_short_t status
        dbr_short_t severity
        epicsTimeStamp stamp
        dbr_long_t value

    struct dbr_time_double:
        dbr_short_t status
        dbr_short_t severity
        epicsTimeStamp stamp
        dbr_long_t RISC_pad
        dbr_double_t value

    struct dbr_gr_int:
        dbr_short_t status
        dbr_short_t severity
        char units[MAX_UNITS_SIZE]
        dbr_short_t upper_disp_limit
        dbr_short_t lower_disp_limit
        dbr_short_t upper_alarm_limit
        dbr_short_t upper_warning_limit
        dbr_short_t lower_warning_limit
        dbr_short_t lower_alarm_limit
        dbr_short_t value

    struct dbr_gr_short:
        dbr_short_t status
        dbr_short_t severity
        char units[MAX_UNITS_SIZE]
        dbr_short_t upper_disp_limit
        dbr_short_t lower_disp_limit
        dbr_short_t upper_alarm_limit
        dbr_short_t upper_warning_limit
        dbr_short_t lower_warning_limit
        dbr_short_t lower_alarm_limit
        dbr_short_t value

    struct dbr_gr_float:
        dbr_short_t status
        dbr_short_t severity
        dbr_short_t precision
        dbr_short_t RISC_pad0
        char units[MAX_UNITS_SIZE]
        dbr_float_t upper_disp_limit
        dbr_float_t lower_disp_limit
        dbr_float_t upper_alarm_limit
        dbr_float_t upper_warning_limit
        dbr_float_t lower_warning_limit
        dbr_float_t lower_alarm_limit
        dbr_float_t value

    struct dbr_gr_enum:
        dbr_short_t status
        dbr_short_t severity
        dbr_short_t no_str
        char strs[MAX_ENUM_STATES][MAX_ENUM_STRING_SIZE]
        dbr_enum_t value

    struct dbr_gr_char:
        dbr_short_t status
        dbr_short_t severity
        char units[MAX_UNITS_SIZE]
        dbr_char_t upper_disp_limit
        dbr_char_t lower_disp_limit
        dbr_char_t upper_alarm_limit
        dbr_char_t upper_warning_limit
        dbr_char_t lower_warning_limit
        dbr_char_t lower_alarm_limit
        dbr_char_t RISC_pad
        dbr_char_t value

    struct dbr_gr_long:
        dbr_short_t status
        dbr_short_t severity
        char units[MAX_UNITS_SIZE]
        dbr_long_t upper_disp_limit
        dbr_long_t lower_disp_limit
        dbr_long_t upper_alarm_limit
        dbr_long_t upper_warning_limit
        dbr_long_t lower_warning_limit
        dbr_long_t lower_alarm_limit
        dbr_long_t value

    struct dbr_gr_double:
        dbr_short_t status
        dbr_short_t severity
        dbr_short_t precision
        dbr_short_t RISC_pad0
        char units[MAX_UNITS_SIZE]
        dbr_double_t upper_disp_limit
        dbr_double_t lower_disp_limit
        dbr_double_t upper_alarm_limit
        dbr_double_t upper_warning_limit
        dbr_double_t lower_warning_limit
        dbr_double_t lower_alarm_limit
        dbr_double_t value

    struct dbr_ctrl_int:
        dbr_short_t status
        dbr_short_t severity
        char units[MAX_UNITS_SIZE]
        dbr_short_t upper_disp_limit
        dbr_short_t lower_disp_limit
        dbr_short_t upper_alarm_limit
        dbr_short_t upper_warning_limit
        dbr_short_t lower_warning_limit
        dbr_short_t lower_alarm_limit
        dbr_short_t upper_ctrl_limit
        dbr_short_t lower_ctrl_limit
        dbr_short_t value

    struct dbr_ctrl_short:
        dbr_short_t status
        dbr_short_t severity
        char units[MAX_UNITS_SIZE]
        dbr_short_t upper_disp_limit
        dbr_short_t lower_disp_limit
        dbr_short_t upper_alarm_limit
        dbr_short_t upper_warning_limit
        dbr_short_t lower_warning_limit
        dbr_short_t lower_alarm_limit
        dbr_short_t upper_ctrl_limit
        dbr_short_t lower_ctrl_limit
        dbr_short_t value

    struct dbr_ctrl_float:
        dbr_short_t status
        dbr_short_t severity
        dbr_short_t precision
        dbr_short_t RISC_pad
        char units[MAX_UNITS_SIZE]
        dbr_float_t upper_disp_limit
        dbr_float_t lower_disp_limit
        dbr_float_t upper_alarm_limit
        dbr_float_t upper_warning_limit
        dbr_float_t lower_warning_limit
        dbr_float_t lower_alarm_limit
        dbr_float_t upper_ctrl_limit
        dbr_float_t lower_ctrl_limit
        dbr_float_t value

    struct dbr_ctrl_enum:
        dbr_short_t status
        dbr_short_t severity
        dbr_short_t no_str
        char strs[MAX_ENUM_STATES][MAX_ENUM_STRING_SIZE]
        dbr_enum_t value

    struct dbr_ctrl_char:
        dbr_short_t status
        dbr_short_t severity
        char units[MAX_UNITS_SIZE]
        dbr_char_t upper_disp_limit
        dbr_char_t lower_disp_limit
        dbr_char_t upper_alarm_limit
        dbr_char_t upper_warning_limit
        dbr_char_t lower_warning_limit
        dbr_char_t lower_alarm_limit
        dbr_char_t upper_ctrl_limit
        dbr_char_t lower_ctrl_limit
        dbr_char_t RISC_pad
        dbr_char_t value

    struct dbr_ctrl_long:
        dbr_short_t status
        dbr_short_t severity
        char units[MAX_UNITS_SIZE]
        dbr_long_t upper_disp_limit
        dbr_long_t lower_disp_limit
        dbr_long_t upper_alarm_limit
        dbr_long_t upper_warning_limit
        dbr_long_t lower_warning_limit
        dbr_long_t lower_alarm_limit
        dbr_long_t upper_ctrl_limit
        dbr_long_t lower_ctrl_limit
        dbr_long_t value

    struct dbr_ctrl_double:
        dbr_short_t status
        dbr_short_t severity
        dbr_short_t precision
        dbr_short_t RISC_pad0
        char units[MAX_UNITS_SIZE]
        dbr_double_t upper_disp_limit
        dbr_double_t lower_disp_limit
        dbr_double_t upper_alarm_limit
        dbr_double_t upper_warning_limit
        dbr_double_t lower_warning_limit
        dbr_double_t lower_alarm_limit
        dbr_double_t upper_ctrl_limit
        dbr_double_t lower_ctrl_limit
        dbr_double_t value
