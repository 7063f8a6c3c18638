/* dnsshim: a DNS that answers when a test lets it, by LD_PRELOAD. Linux with glibc.
 *
 * DNSSHIM names a file. Who asks for the name of an address waits until that file exists, a minute at most, and is told
 * NAME, whatever the address. libCom asks in a thread of its own, for one address after the other.
 *
 * Threads. Every function may run in any thread; libCom serialises gethostbyaddr, whose answer is static.
 */

#define _GNU_SOURCE
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NAME "late.example"

static void until_it_may_answer(void)
{
    const char *path = getenv("DNSSHIM");
    struct timespec look = {0, 5000000};
    int looks;

    for (looks = 0; path && access(path, F_OK) && looks < 12000; looks++)
        nanosleep(&look, NULL);
}

struct hostent *gethostbyaddr(const void *address, socklen_t length, int family)
{
    static char name[] = NAME;
    static char *none[1];
    static struct hostent found;

    (void)address;
    until_it_may_answer();
    found.h_name = name;
    found.h_aliases = found.h_addr_list = none;
    found.h_addrtype = family;
    found.h_length = (int)length;
    return &found;
}

int getnameinfo(const struct sockaddr *restrict address, socklen_t length, char *restrict host, socklen_t bytes,
                char *restrict service, socklen_t service_bytes, int flags)
{
    (void)address, (void)length, (void)flags;
    until_it_may_answer();
    if (host && bytes)
        snprintf(host, bytes, "%s", NAME);
    if (service && service_bytes)
        service[0] = 0;
    return 0;
}
