"""The edits that make libca safe against a bad server, and faster, for `EPICSX_EPICS=hardened`.

An edit is a piece of source text that must occur exactly once, and what takes its place. The build
refuses to go on when the text is not there any more, and names the guard. docs/hardened.md tells
what each is for; a test keeps the two lists equal.

The pieces of EPICS' text are kept as short as finding the place allows.
"""

from __future__ import annotations

from dataclasses import dataclass

CA = "modules/ca/src/client/"
COM = "modules/libcom/src/"


@dataclass(frozen=True)
class Edit:
    """In `file`, the one place that reads `find` becomes `replace`."""

    file: str
    find: str
    replace: str


@dataclass(frozen=True)
class Guard:
    """A named group of edits that belong together."""

    name: str
    edits: tuple[Edit, ...]


# Files of our own that the edits call; they lie in tools/hardened.
ADDED: tuple[str, ...] = ("epicsx_guards.h", "epicsx_swap.h", "epicsx_swap.cpp")


def after(file: str, find: str, text: str) -> Edit:
    """Put `text` behind the place."""
    return Edit(file, find, find + text)


def before(file: str, find: str, text: str) -> Edit:
    """Put `text` in front of the place."""
    return Edit(file, find, text + find)


def instead(file: str, find: str, old: str, new: str) -> Edit:
    """At the place, `new` for `old`, which occurs in it once."""
    assert find.count(old) == 1, (find, old)
    return Edit(file, find, find.replace(old, new))


def clock(file: str, find: str) -> Edit:
    """At the place, the monotonic clock instead of the wall clock."""
    return instead(file, find, "getCurrent", "getMonotonic")


_LOOKUP = "    baseNMIU * pmiu = this->ioTable.remove ( hdr.m_available );\n"
_IF_READ = "    if ( caStatus == ECA_NORMAL && ! epicsx::payloadHolds ( hdr, pMsgBdy ) ) {\n"
_REFUSE = "return epicsx::refuse ( iiu, guard, hdr, "

GUARDS: tuple[Guard, ...] = (
    # ------------------------------------------------------------- what a server can send
    Guard(
        "payload-size",
        (
            after(CA + "cac.cpp", '#include "autoPtrFreeList.h"\n', '#include "epicsx_guards.h"\n'),
            Edit(
                CA + "cac.cpp",
                "        caStatus = ECA_NORMAL;\n    }\n\n" + _LOOKUP,
                "        caStatus = ECA_NORMAL;\n    }\n\n"
                + _IF_READ
                + "        "
                + _REFUSE
                + '"shorter than its element count" );\n    }\n'
                + _LOOKUP,
            ),
            Edit(
                CA + "cac.cpp",
                "        caStatus = ECA_NORMAL;\n    }\n\n    //\n",
                "        caStatus = ECA_NORMAL;\n    }\n\n"
                + _IF_READ
                + "        "
                + _REFUSE
                + '"shorter than its element count" );\n    }\n\n    //\n',
            ),
        ),
    ),
    Guard(
        "reply-kind",
        (
            after(
                CA + "cac.cpp",
                "    baseNMIU * pmiu = this->ioTable.lookup ( hdr.m_available );\n",
                "    if ( pmiu && ! pmiu->isSubscription () ) {\n"
                "        " + _REFUSE + '"an update for what is no subscription" );\n    }\n',
            ),
            Edit(
                CA + "cac.cpp",
                _LOOKUP + "    //\n    // The IO destroy routines take the call back mutex\n"
                "    // when uninstalling and deleting the baseNMIU so there is\n"
                "    // no need to worry here about the baseNMIU being deleted while\n"
                "    // it is in use here.\n    //\n    if ( pmiu ) {\n        // if",
                "    baseNMIU * pmiu = this->ioTable.lookup ( hdr.m_available );\n"
                "    if ( pmiu && ! pmiu->isSubscription () &&\n"
                "            ! dynamic_cast < netReadNotifyIO * > ( pmiu ) ) {\n"
                "        " + _REFUSE + '"a value for what is no read" );\n    }\n'
                "    if ( pmiu ) {\n        this->ioTable.remove ( hdr.m_available );\n        // if",
            ),
            Edit(
                CA + "cac.cpp",
                "    callbackManager &, tcpiiu &,\n"
                "    const epicsTime &, const caHdrLargeArray & hdr, void * )\n{\n"
                "    epicsGuard < epicsMutex > guard ( this->mutex );\n"
                + _LOOKUP
                + "    if ( pmiu ) {\n        if ( hdr.m_cid",
                "    callbackManager &, tcpiiu & iiu,\n"
                "    const epicsTime &, const caHdrLargeArray & hdr, void * )\n{\n"
                "    epicsGuard < epicsMutex > guard ( this->mutex );\n"
                "    baseNMIU * pmiu = this->ioTable.lookup ( hdr.m_available );\n"
                "    if ( pmiu && ! dynamic_cast < netWriteNotifyIO * > ( pmiu ) ) {\n"
                "        " + _REFUSE + '"an answer for what is no write" );\n    }\n'
                "    if ( pmiu ) {\n        this->ioTable.remove ( hdr.m_available );\n"
                "        if ( hdr.m_cid",
            ),
            # the answer to a request that this library never sends
            instead(CA + "cac.cpp", "    &cac::readRespAction,\n", "read", "badTCP"),
        ),
    ),
    Guard(
        "error-command",
        (
            instead(
                CA + "cac.cpp",
                "    if ( hdr.m_cmmd >= NELEMENTS ( cac::tcpExcepJumpTableCAC ) ) {\n",
                "hdr.m_cmmd",
                "req.m_cmmd",
            ),
        ),
    ),
    Guard(
        "error-text",
        (
            Edit(
                CA + "cac.cpp",
                "    const char *pCtx = reinterpret_cast < const char * > ( pLW );\n",
                '    const char *pCtx = "";\n    if ( hdr.m_postsize > bytesSoFar ) {\n'
                "        static_cast < char * > ( pMsgBdy )[hdr.m_postsize - 1u] = '\\0';\n"
                "        pCtx = reinterpret_cast < const char * > ( pLW );\n    }\n",
            ),
            instead(
                CA + "udpiiu.cpp",
                'detected by %s with context \\"%s\\" at %s\\n",\n',
                '\\"%s\\"',
                '\\"%.*s\\"',
            ),
            instead(
                CA + "udpiiu.cpp",
                "            name, reinterpret_cast <const char *> ( &reqMsg + 1 ), date );\n",
                "name, ",
                "name, static_cast < int > ( msg.m_postsize - sizeof ( caHdr ) ), ",
            ),
        ),
    ),
    Guard(
        "error-kind",
        (
            instead(
                CA + "cac.cpp",
                "    baseNMIU * pmiu = this->ioTable.lookup ( idIn );\n    if ( pmiu ) {\n"
                "        pmiu->exception",
                "if ( pmiu ) {",
                "if ( pmiu && pmiu->isSubscription () ) {",
            ),
            Edit(
                CA + "cac.cpp",
                "    baseNMIU * pmiu = this->ioTable.remove ( idIn );\n    if ( pmiu ) {\n",
                "    baseNMIU * pmiu = this->ioTable.lookup ( idIn );\n    if ( pmiu ) {\n"
                "        if ( ! pmiu->isSubscription () ) {\n"
                "            this->ioTable.remove ( idIn );\n        }\n",
            ),
        ),
    ),
    Guard(
        "server-status",
        (
            instead(
                CA + "cac.cpp",
                '                caStatus, "read failed",\n',
                "caStatus",
                "epicsx::serverStatus ( caStatus )",
            ),
            instead(
                CA + "cac.cpp",
                "            pmiu->exception ( guard, *this, caStatus,\n"
                '                "subscription update read failed",\n',
                "caStatus",
                "epicsx::serverStatus ( caStatus )",
            ),
            instead(
                CA + "cac.cpp",
                '                hdr.m_cid, "write notify request rejected" );\n',
                "hdr.m_cid",
                "epicsx::serverStatus ( hdr.m_cid )",
            ),
            instead(
                CA + "cac.cpp",
                "( cbMutexIn, iiu, req, pCtx, hdr.m_available );\n",
                "hdr.m_available",
                "epicsx::serverStatus ( hdr.m_available )",
            ),
        ),
    ),
    Guard(
        "no-abort",
        (
            Edit(
                CA + "ca_client_context.cpp",
                "        errlogFlush ();\n        abort ();\n",
                "        errlogFlush ();\n",
            ),
        ),
    ),
    Guard(
        "native-type",
        (
            before(
                CA + "cac.cpp",
                "        bool wasExpected = iiu.connectNotify ( guard, *pChan );\n",
                "        if ( ! dbf_type_is_valid ( hdr.m_dataType ) ) {\n"
                "            " + _REFUSE + '"no such native type" );\n        }\n',
            ),
        ),
    ),
    Guard(
        "own-circuit",
        (
            before(
                CA + "cac.cpp",
                "    if ( pChan ) {\n        unsigned sidTmp;\n",
                "    if ( pChan && pChan->getPIIU ( guard ) != & iiu ) {\n"
                "        return true; // another server's channel\n    }\n",
            ),
            instead(
                CA + "cac.cpp",
                "bool cac::accessRightsRespAction (\n    callbackManager & mgr, tcpiiu &,\n",
                "tcpiiu &",
                "tcpiiu & iiu",
            ),
            instead(
                CA + "cac.cpp",
                "    if ( pChan ) {\n        unsigned ar = hdr.m_available;\n",
                "if ( pChan )",
                "if ( pChan && pChan->getPIIU ( guard ) == & iiu )",
            ),
            instead(
                CA + "cac.cpp",
                "bool cac::verifyAndDisconnectChan (\n    callbackManager & mgr, tcpiiu &,\n",
                "tcpiiu &",
                "tcpiiu & iiu",
            ),
            instead(
                CA + "cac.cpp",
                "    if ( ! pChan ) {\n        return true;\n    }\n    this->disconnectChannel (",
                "! pChan",
                "! pChan || pChan->getPIIU ( guard ) != & iiu",
            ),
        ),
    ),
    Guard(
        "message-size",
        (
            after(CA + "tcpiiu.cpp", '#include "udpiiu.h"\n', '#include "epicsx_guards.h"\n'),
            before(
                CA + "tcpiiu.cpp",
                "        //\n        // make sure we have a large enough message body cache\n",
                "        if ( this->curMsg.m_postsize > epicsx::longestMessage &&\n"
                "                this->curMsg.m_postsize > this->cacRef.maxRecvBytesTCP ) {\n"
                "            this->printFormated ( mgr.cbGuard,\n"
                '                "CAC: a message of %u bytes is not believed - disconnecting\\n",\n'
                "                this->curMsg.m_postsize );\n"
                "            return false;\n        }\n\n",
            ),
            instead(
                CA + "tcpiiu.cpp",
                "                newsize = ((this->curMsg.m_postsize-1)|0xfff)+1;\n",
                "this->curMsg.m_postsize",
                "static_cast < arrayElementCount > ( this->curMsg.m_postsize )",
            ),
        ),
    ),
    Guard(
        "get-copy",
        (
            instead(
                CA + "getCopy.cpp",
                "    if ( this->type == typeIn ) {\n",
                "typeIn )",
                "typeIn && countIn <= this->count )",
            ),
        ),
    ),
    Guard(
        "udp-alignment",
        (
            instead(
                CA + "udpiiu.h",
                "    char recvBuf [MAX_UDP_RECV];\n",
                "char recvBuf",
                "__attribute__ (( aligned ( 8 ) )) char recvBuf",
            ),
            instead(
                CA + "udpiiu.cpp",
                "        if ( size > blockSize ) {\n",
                "size > blockSize",
                "size > blockSize || ( ( size & 3u ) && size < blockSize )",
            ),
        ),
    ),
    Guard(
        "beacon-table",
        (
            before(
                CA + "cac.cpp",
                "        pBHE = new ( this->bheFreeList )\n"
                "                bhe ( this->mutex, currentTime",
                "        if ( this->beaconTable.numEntriesInstalled () >= 0x10000u ) {\n"
                "            return;\n        }\n",
            ),
        ),
    ),
    # ------------------------------------------------------------------ libca's own gaps
    Guard(
        "circuit-failure",
        (
            before(
                CA + "cac.cpp",
                "    // must occur before moving to new iiu\n",
                "    if ( ! piiu ) {\n        return; // goes on searching\n    }\n",
            ),
        ),
    ),
    Guard(
        "name-server-exit",
        (
            Edit(
                CA + "cac.cpp",
                "            this->pudpiiu->shutdown ( cbGuard, guard );\n",
                "            this->pudpiiu->shutdown ( cbGuard, guard );\n        }\n        {\n",
            ),
            Edit(
                CA + "cac.cpp",
                "        assert ( this->pudpiiu );\n        iiu.disconnectAllChannels",
                "        if ( ! this->pudpiiu ) { // no channel yet\n"
                "            iiu.unlinkAllChannels ( mgr.cbGuard, guard );\n        }\n"
                "        else\n        iiu.disconnectAllChannels",
            ),
            Edit(
                CA + "cac.cpp",
                "    assert ( this->pudpiiu );\n    iiu.searchRespNotify",
                "    if ( ! this->pudpiiu ) {\n        return true;\n    }\n    iiu.searchRespNotify",
            ),
            Edit(
                CA + "tcpiiu.cpp",
                "                epicsGuardRelease < epicsMutex > unguard ( guard );\n"
                "                epicsThreadSleep ( sleepTime );\n",
                "                while ( sleepTime > 0.0 &&\n"
                "                        this->iiu.state == tcpiiu::iiucs_connecting ) {\n"
                "                    epicsGuardRelease < epicsMutex > unguard ( guard );\n"
                "                    epicsThreadSleep ( 0.1 );\n"
                "                    sleepTime -= 0.1;\n                }\n",
            ),
        ),
    ),
    Guard(
        "subscribed-flag",
        (
            instead(
                CA + "cac.h",
                "        nciu &, tsDLList < baseNMIU > & ioList );\n",
                "ioList",
                "ioList, bool leaving = true",
            ),
            instead(
                CA + "cac.cpp",
                "    nciu & chan, tsDLList < baseNMIU > & ioList )\n",
                "ioList",
                "ioList, bool leaving",
            ),
            Edit(
                CA + "cac.cpp",
                "        pNetIO->exception ( guard, *this, ECA_DISCONN, buf );\n",
                "        if ( leaving || ! pNetIO->isSubscription() ) {\n"
                "            pNetIO->exception ( guard, *this, ECA_DISCONN, buf );\n        }\n",
            ),
            instead(
                CA + "nciu.cpp",
                "        *this, this->eventq );\n    this->notify()",
                "eventq",
                "eventq, false",
            ),
        ),
    ),
    Guard(
        "fork-warning",
        (
            Edit(
                COM + "osi/os/posix/osdThread.c",
                '        fprintf(stderr, "Warning: Undefined Behavior!\\n"\n'
                '                        "         Detected use of epicsThread from child '
                'process after fork()\\n");\n',
                "        ; /* epicsx tells, in its own words */\n",
            ),
        ),
    ),
    Guard(
        "monotonic-clock",
        (
            clock(COM + "timer/timer.cpp", "notify, epicsTime::getCurrent () + delaySeconds"),
            clock(COM + "timer/timer.cpp", "expire - epicsTime::getCurrent ()"),
            clock(COM + "timer/timer.cpp", "this->exp - epicsTime::getCurrent()"),
            clock(COM + "timer/epicsTimer.h", "info.expireTime - epicsTime::getCurrent ()"),
            clock(COM + "timer/epicsTimer.cpp", "pQueue->process ( epicsTime::getCurrent() )"),
            clock(
                COM + "timer/timerQueueActive.cpp",
                "this->queue.process ( epicsTime::getCurrent() )",
            ),
            clock(COM + "osi/epicsThread.cpp", "exitWaitBegin = epicsTime::getCurrent ()"),
            clock(COM + "osi/epicsThread.cpp", "epicsTime current = epicsTime::getCurrent ()"),
            clock(CA + "cac.cpp", "programBeginTime ( epicsTime::getCurrent() )"),
            clock(CA + "tcpiiu.cpp", "epicsTime currentTime = epicsTime::getCurrent ()"),
            clock(CA + "tcpiiu.cpp", "epicsTime current = epicsTime::getCurrent ()"),
            clock(CA + "searchTimer.cpp", "timeAtLastSend ( epicsTime::getCurrent () )"),
            clock(CA + "udpiiu.cpp", "(arrayElementCount) status, epicsTime::getCurrent() )"),
            # two texts show the time of day
            instead(
                CA + "udpiiu.cpp",
                "    sockAddrToDottedIP ( &netAddr.sa, buf, sizeof ( buf ) );\n"
                "    char date[64];\n    currentTime.",
                "currentTime",
                "epicsTime::getCurrent ()",
            ),
            instead(
                CA + "udpiiu.cpp",
                "    sockAddrToDottedIP ( &net_addr.sa, name, sizeof ( name ) );\n"
                "    char date[64];\n    currentTime.",
                "currentTime",
                "epicsTime::getCurrent ()",
            ),
            # epicsEventWaitWithTimeout is the only one that asks for a wake-up time
            Edit(
                COM + "osi/os/posix/osdEvent.c",
                "            status = pthread_cond_init(&pevent->cond, 0);\n",
                "            pthread_condattr_t attr;\n"
                "            status = pthread_condattr_init(&attr);\n"
                "            if (!status) {\n"
                "                status = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);\n"
                "                if (!status)\n"
                "                    status = pthread_cond_init(&pevent->cond, &attr);\n"
                "                pthread_condattr_destroy(&attr);\n            }\n",
            ),
            instead(
                COM + "osi/os/posix/osdTime.cpp",
                "        timeout = 60 * 60 * 24 * 3652.5;    /* 10 years */\n\n"
                "#ifdef CLOCK_REALTIME\n    status = clock_gettime(CLOCK_REALTIME, &now);\n",
                "clock_gettime(CLOCK_REALTIME",
                "clock_gettime(CLOCK_MONOTONIC",
            ),
        ),
    ),
    # ------------------------------------------------------------------------------ speed
    Guard(
        "fast-swap",
        (
            after(CA + "convert.cpp", '#include "caerr.h"\n', '#include "epicsx_swap.h"\n'),
            *(
                before(
                    CA + "convert.cpp",
                    "    "
                    + f"{const}dbr_{name}_t".ljust(20)
                    + f"*pSrc = ({const}dbr_{name}_t *) s;\n",
                    f"    epicsx::swapElements ( d, (const dbr_{name}_t *) s, num );\n    return;\n",
                )
                for const, name in (
                    ("", "short"),
                    ("", "long"),
                    ("", "enum"),
                    ("const ", "float"),
                    ("", "double"),
                )
            ),
            after(
                CA + "comBuf.h", '#include "compilerDependencies.h"\n', '#include "epicsx_swap.h"\n'
            ),
            Edit(
                CA + "comBuf.h",
                "    for ( unsigned i = 0u; i < nElem; i++ ) {\n"
                "        // allow native floating point formats to be converted to IEEE\n"
                "        WireSet( pValue[i], &this->buf[index] );\n"
                "        index += sizeof ( *pValue );\n    }\n",
                "    epicsx::swapElements ( & this->buf[index], pValue, nElem );\n"
                "    index += nElem * sizeof ( *pValue );\n",
            ),
        ),
    ),
    Guard(
        "large-reads",
        (
            after(
                CA + "virtualCircuit.h",
                "    bool processIncoming (\n        const epicsTime & currentTime, callbackManager & );\n",
                "    // of the body that is being read, when its bytes can go where they belong\n"
                "    unsigned bodyBytesMissing () const {\n"
                "        return msgHeaderAvailable && curMsg.m_postsize <= curDataMax &&\n"
                "            recvQue.occupiedBytes () == 0u ? curMsg.m_postsize - curDataBytes : 0u;\n"
                "    }\n",
            ),
            Edit(
                CA + "tcpiiu.cpp",
                "            pComBuf->fillFromWire ( this->iiu, stat );\n",
                "            const unsigned missing = this->iiu.bodyBytesMissing ();\n"
                "            const bool direct = missing >= comBuf::capacityBytes ();\n"
                "            if ( direct ) {\n"
                "                this->iiu.recvBytes ( & this->iiu.pCurData[this->iiu.curDataBytes],\n"
                "                    missing < 0x40000000u ? missing : 0x40000000u, stat );\n"
                "            }\n            else {\n"
                "                pComBuf->fillFromWire ( this->iiu, stat );\n            }\n",
            ),
            Edit(
                CA + "tcpiiu.cpp",
                "                this->iiu.recvQue.pushLastComBufReceived ( *pComBuf );\n"
                "                pComBuf = 0;\n",
                "                if ( direct ) {\n"
                "                    this->iiu.curDataBytes += stat.bytesCopied;\n"
                "                }\n                else {\n"
                "                    this->iiu.recvQue.pushLastComBufReceived ( *pComBuf );\n"
                "                    pComBuf = 0;\n                }\n",
            ),
            Edit(
                CA + "tcpiiu.cpp",
                "            bool sendWakeupNeeded = false;\n            {\n",
                "            bool sendWakeupNeeded = false;\n"
                "            if ( direct && stat.bytesCopied < missing ) {\n"
                "                // no message is complete: no callback, and no callback lock\n"
                "                epicsGuard < epicsMutex > guard ( this->iiu.mutex );\n"
                "                this->iiu.unacknowledgedSendBytes = 0u;\n"
                "                this->iiu._receiveThreadIsBusy = false;\n"
                "                this->iiu.recvDog.messageArrivalNotify ( guard );\n"
                "            }\n            else {\n",
            ),
            Edit(
                CA + "tcpiiu.cpp",
                "                        this->iiu.contigRecvMsgCount++;\n",
                "                        // as many as reads of the old size would have been\n"
                "                        this->iiu.contigRecvMsgCount += 1u + ( direct ?\n"
                "                            ( stat.bytesCopied - 1u ) / comBuf::capacityBytes () : 0u );\n",
            ),
        ),
    ),
    Guard(
        "clear-guard",
        (
            Edit(
                CA + "access.cpp",
                "        CallbackGuard cbGuard ( cac.cbMutex );\n"
                "        epicsGuard < epicsMutex > guard ( cac.mutex );\n"
                "        pChan->destructor ( *cac.pCallbackGuard.get(), guard );",
                "        CallbackGuard cbGuard ( cac.cbMutex );\n"
                "        epicsGuard < epicsMutex > guard ( cac.mutex );\n"
                "        pChan->destructor ( cbGuard, guard );",
            ),
        ),
    ),
)
