# caerr.h: the status codes of Channel Access, as C declares them.

cdef extern from "caerr.h" nogil:
    enum:
        CA_K_INFO
        CA_K_ERROR
        CA_K_SUCCESS
        CA_K_WARNING
        CA_K_SEVERE
        CA_K_FATAL

    enum:
        CA_M_MSG_NO
        CA_M_SEVERITY
        CA_M_LEVEL
        CA_M_SUCCESS
        CA_M_ERROR
        CA_M_SEVERE

    int CA_EXTRACT_MSG_NO(long code)
    int CA_EXTRACT_SEVERITY(long code)
    int CA_EXTRACT_SUCCESS(long code)

    enum:
        ECA_NORMAL
        ECA_MAXIOC
        ECA_UKNHOST
        ECA_UKNSERV
        ECA_SOCK
        ECA_CONN
        ECA_ALLOCMEM
        ECA_UKNCHAN
        ECA_UKNFIELD
        ECA_TOLARGE
        ECA_TIMEOUT
        ECA_NOSUPPORT
        ECA_STRTOBIG
        ECA_DISCONNCHID
        ECA_BADTYPE
        ECA_CHIDNOTFND
        ECA_CHIDRETRY
        ECA_INTERNAL
        ECA_DBLCLFAIL
        ECA_GETFAIL
        ECA_PUTFAIL
        ECA_ADDFAIL
        ECA_BADCOUNT
        ECA_BADSTR
        ECA_DISCONN
        ECA_DBLCHNL
        ECA_EVDISALLOW
        ECA_BUILDGET
        ECA_NEEDSFP
        ECA_OVEVFAIL
        ECA_BADMONID
        ECA_NEWADDR
        ECA_NEWCONN
        ECA_NOCACTX
        ECA_DEFUNCT
        ECA_EMPTYSTR
        ECA_NOREPEATER
        ECA_NOCHANMSG
        ECA_DLCKREST
        ECA_SERVBEHIND
        ECA_NOCAST
        ECA_BADMASK
        ECA_IODONE
        ECA_IOINPROGRESS
        ECA_BADSYNCGRP
        ECA_PUTCBINPROG
        ECA_NORDACCESS
        ECA_NOWTACCESS
        ECA_ANACHRONISM
        ECA_NOSEARCHADDR
        ECA_NOCONVERT
        ECA_BADCHID
        ECA_BADFUNCPTR
        ECA_ISATTACHED
        ECA_UNAVAILINSERV
        ECA_CHANDESTROY
        ECA_BADPRIORITY
        ECA_NOTTHREADED
        ECA_16KARRAYCLIENT
        ECA_CONNSEQTMO
        ECA_UNRESPTMO

    const char *ca_message(long ca_status)
