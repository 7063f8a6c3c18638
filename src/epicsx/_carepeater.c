/* caRepeater: hands the beacons of IOCs to every Channel Access client of this host.
 *
 * UDP port 5065 can be read by one process only; that process is the repeater, and it must outlive
 * whoever started it. The work is libca's own; this program gives it a process to live in.
 *
 *   caRepeater            run here, until killed; for a service manager
 *   caRepeater --detach   run in the background, in a session of its own; return at once
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <dirent.h>
#include <stdlib.h>
#include <sys/syscall.h>
#endif

/* Exported by libca since 3.14 with C linkage, but no public header declares it; ca_repeater()
 * itself has C++ linkage and cannot be named from here. */
extern void caRepeaterThread(void *);

/* A repeater lives for months: it must not hold its first client's sockets, files or terminal. */
static void close_inherited(void)
{
    long last;
    int fd;
#if defined(__linux__) && defined(SYS_close_range)
    if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
        return;
#endif
#ifdef __linux__
    {
        /* kernels before 5.9; never a loop up to a limit that may be 2^30 */
        DIR *dir = opendir("/proc/self/fd");
        if (dir != NULL) {
            struct dirent *entry;
            while ((entry = readdir(dir)) != NULL) {
                fd = atoi(entry->d_name);
                if (fd > 2 && fd != dirfd(dir))
                    close(fd);
            }
            closedir(dir);
            return;
        }
    }
#endif
    last = sysconf(_SC_OPEN_MAX);
    if (last < 0 || last > 65536)
        last = 65536;
    for (fd = 3; fd < last; fd++)
        close(fd);
}

static void default_signals(void)
{
    sigset_t none;
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_handler = SIG_DFL;
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGHUP, &act, NULL);
    sigaction(SIGCHLD, &act, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* 0 in the process that goes on as the repeater; otherwise the exit status, plus one, of a process
 * that is done. Two forks: the middle one leaves, so that nobody has to wait for the repeater, and
 * the repeater, not leading its session, can never get a terminal. */
static int detach(void)
{
    int null;
    pid_t pid = fork();
    if (pid < 0)
        return 2;
    if (pid > 0) {
        int status = 0;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        return status == 0 ? 1 : 2;
    }
    if (setsid() < 0)
        return 2;
    pid = fork();
    if (pid != 0)
        return pid < 0 ? 2 : 1;
    if (chdir("/") != 0)
        return 2;
    null = open("/dev/null", O_RDWR);
    if (null < 0)
        return 2;
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    return 0;
}

int main(int argc, char **argv)
{
    default_signals();
    if (argc == 2 && strcmp(argv[1], "--detach") == 0) {
        int done = detach();
        if (done)
            _exit(done - 1);
    } else if (argc != 1) {
        fprintf(stderr, "usage: %s [--detach]\n", argv[0]);
        return 2;
    }
    close_inherited();
    caRepeaterThread(NULL); /* returns only if another repeater has the port */
    return 0;
}
