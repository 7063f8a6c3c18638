/* The 39 DBR types in one table: what each carries, and where. Made by the compiler from EPICS' own
 * structures, so that nothing of libca is linked for it. Constants only; any thread may read them. */
#ifndef EPICSX_DBR_H
#define EPICSX_DBR_H

#include <stddef.h>
#include "db_access.h"

typedef struct {
    unsigned char native;        /* DBR_STRING .. DBR_DOUBLE */
    unsigned char kind;          /* how an element is stored: as native, but alarm acknowledgement is unsigned */
    unsigned char has;           /* EPICSX_ALARM and so on */
    unsigned char n_limits;
    unsigned short offset;       /* of the first element */
    unsigned short element;      /* bytes per element */
    unsigned short size;         /* of the structure, which holds one element */
    unsigned short precision, units, limits;
} epicsx_dbr_row;

enum { EPICSX_ALARM = 1, EPICSX_STAMP = 2, EPICSX_UNITS = 4, EPICSX_PRECISION = 8, EPICSX_STATES = 16, EPICSX_ACK = 32 };

#define EPICSX_PLAIN(NATIVE, KIND, TYPE) \
    { NATIVE, KIND, 0, 0, 0, sizeof(TYPE), sizeof(TYPE), 0, 0, 0 }
#define EPICSX_BODY(STRUCT) \
    offsetof(struct STRUCT, value), sizeof(((struct STRUCT *)0)->value), sizeof(struct STRUCT)
#define EPICSX_WITH(NATIVE, HAS, STRUCT) \
    { NATIVE, NATIVE, HAS, 0, EPICSX_BODY(STRUCT), 0, 0, 0 }
#define EPICSX_INTEGER(NATIVE, LIMITS, STRUCT) \
    { NATIVE, NATIVE, EPICSX_ALARM | EPICSX_UNITS, LIMITS, EPICSX_BODY(STRUCT), \
      0, offsetof(struct STRUCT, units), offsetof(struct STRUCT, upper_disp_limit) }
#define EPICSX_REAL(NATIVE, LIMITS, STRUCT) \
    { NATIVE, NATIVE, EPICSX_ALARM | EPICSX_UNITS | EPICSX_PRECISION, LIMITS, EPICSX_BODY(STRUCT), \
      offsetof(struct STRUCT, precision), offsetof(struct STRUCT, units), offsetof(struct STRUCT, upper_disp_limit) }

static const epicsx_dbr_row epicsx_dbr_table[LAST_BUFFER_TYPE + 1] = {
    EPICSX_PLAIN(DBR_STRING, DBR_STRING, dbr_string_t),
    EPICSX_PLAIN(DBR_SHORT, DBR_SHORT, dbr_short_t),
    EPICSX_PLAIN(DBR_FLOAT, DBR_FLOAT, dbr_float_t),
    EPICSX_PLAIN(DBR_ENUM, DBR_ENUM, dbr_enum_t),
    EPICSX_PLAIN(DBR_CHAR, DBR_CHAR, dbr_char_t),
    EPICSX_PLAIN(DBR_LONG, DBR_LONG, dbr_long_t),
    EPICSX_PLAIN(DBR_DOUBLE, DBR_DOUBLE, dbr_double_t),

    EPICSX_WITH(DBR_STRING, EPICSX_ALARM, dbr_sts_string),
    EPICSX_WITH(DBR_SHORT, EPICSX_ALARM, dbr_sts_short),
    EPICSX_WITH(DBR_FLOAT, EPICSX_ALARM, dbr_sts_float),
    EPICSX_WITH(DBR_ENUM, EPICSX_ALARM, dbr_sts_enum),
    EPICSX_WITH(DBR_CHAR, EPICSX_ALARM, dbr_sts_char),
    EPICSX_WITH(DBR_LONG, EPICSX_ALARM, dbr_sts_long),
    EPICSX_WITH(DBR_DOUBLE, EPICSX_ALARM, dbr_sts_double),

    EPICSX_WITH(DBR_STRING, EPICSX_ALARM | EPICSX_STAMP, dbr_time_string),
    EPICSX_WITH(DBR_SHORT, EPICSX_ALARM | EPICSX_STAMP, dbr_time_short),
    EPICSX_WITH(DBR_FLOAT, EPICSX_ALARM | EPICSX_STAMP, dbr_time_float),
    EPICSX_WITH(DBR_ENUM, EPICSX_ALARM | EPICSX_STAMP, dbr_time_enum),
    EPICSX_WITH(DBR_CHAR, EPICSX_ALARM | EPICSX_STAMP, dbr_time_char),
    EPICSX_WITH(DBR_LONG, EPICSX_ALARM | EPICSX_STAMP, dbr_time_long),
    EPICSX_WITH(DBR_DOUBLE, EPICSX_ALARM | EPICSX_STAMP, dbr_time_double),

    EPICSX_WITH(DBR_STRING, EPICSX_ALARM, dbr_sts_string),
    EPICSX_INTEGER(DBR_SHORT, 6, dbr_gr_short),
    EPICSX_REAL(DBR_FLOAT, 6, dbr_gr_float),
    EPICSX_WITH(DBR_ENUM, EPICSX_ALARM | EPICSX_STATES, dbr_gr_enum),
    EPICSX_INTEGER(DBR_CHAR, 6, dbr_gr_char),
    EPICSX_INTEGER(DBR_LONG, 6, dbr_gr_long),
    EPICSX_REAL(DBR_DOUBLE, 6, dbr_gr_double),

    EPICSX_WITH(DBR_STRING, EPICSX_ALARM, dbr_sts_string),
    EPICSX_INTEGER(DBR_SHORT, 8, dbr_ctrl_short),
    EPICSX_REAL(DBR_FLOAT, 8, dbr_ctrl_float),
    EPICSX_WITH(DBR_ENUM, EPICSX_ALARM | EPICSX_STATES, dbr_ctrl_enum),
    EPICSX_INTEGER(DBR_CHAR, 8, dbr_ctrl_char),
    EPICSX_INTEGER(DBR_LONG, 8, dbr_ctrl_long),
    EPICSX_REAL(DBR_DOUBLE, 8, dbr_ctrl_double),

    EPICSX_PLAIN(DBR_SHORT, DBR_ENUM, dbr_put_ackt_t),
    EPICSX_PLAIN(DBR_SHORT, DBR_ENUM, dbr_put_acks_t),
    EPICSX_WITH(DBR_STRING, EPICSX_ALARM | EPICSX_ACK, dbr_stsack_string),
    EPICSX_PLAIN(DBR_STRING, DBR_STRING, dbr_class_name_t),
};

#endif
