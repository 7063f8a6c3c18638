/* What the edits of tools/hardened_guards.py call inside libca. Our own work, not EPICS'. */
#ifndef EPICSX_GUARDS_H
#define EPICSX_GUARDS_H

#include <string.h>

#include "caerr.h"
#include "db_access.h"
#include "errlog.h"

namespace epicsx {

/* The longest message that is believed, unless EPICS_CA_MAX_ARRAY_BYTES allows more. */
static const unsigned long longestMessage = 0x40000000ul;

/* Say what was wrong, once for the message; the result ends the circuit. */
template < class Circuit, class Guard, class Header >
bool refuse ( Circuit & circuit, Guard & guard, const Header & hdr, const char * what )
{
    char host[64];
    circuit.getHostName ( guard, host, sizeof ( host ) );
    errlogPrintf ( "CAC: message %u from %s: %s - disconnecting\n", hdr.m_cmmd, host, what );
    return false;
}

/* A status that the server chose, for a request that did not succeed. Three codes steer libca's own
 * objects and are never a server's: they would free a subscription that is still in the tables, mark it as gone from
 * the server, or report success without a value. */
inline int serverStatus ( unsigned long status )
{
    if ( status == ECA_CHANDESTROY || status == ECA_DISCONN || status == ECA_NORMAL ) {
        return ECA_INTERNAL;
    }
    return static_cast < int > ( status );
}

/* Whether the body is as long as type and count say. Servers send a single string without the bytes after
 * its end (rsrv: read_reply): those are filled with zeros, so that nothing of an earlier message shows. */
template < class Header >
bool payloadHolds ( const Header & hdr, void * pBody )
{
    if ( hdr.m_dataType > LAST_BUFFER_TYPE ) {
        return true; /* caNetConvert refuses it */
    }
    const unsigned type = hdr.m_dataType;
    const unsigned long long offset = dbr_value_offset[type];
    const unsigned long long wanted = offset + 1ull * hdr.m_count * dbr_value_size[type];
    if ( hdr.m_postsize >= wanted ) {
        return true;
    }
    const bool isString = dbr_value_class[type] == dbr_class_string || type == DBR_STSACK_STRING
                          || type == DBR_CLASS_NAME;
    if ( ! isString || hdr.m_count != 1u || hdr.m_postsize <= offset ) {
        return false;
    }
    memset ( static_cast < char * > ( pBody ) + hdr.m_postsize, 0, wanted - hdr.m_postsize );
    return true;
}

} // namespace epicsx

#endif
