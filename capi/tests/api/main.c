/* Every function of ocbus.h, as it should be used and as it should not. Run by tests/programs.rs, under valgrind too. */
#define _GNU_SOURCE
#include "host.h"

#include <dirent.h>
#include <time.h>

static int descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

/* nng closes the last sockets in a thread of its own, a moment after ocbus_destroy(). */
static bool comes_down_to(int count)
{
    const struct timespec moment = { .tv_nsec = 5000000 };
    int n;

    for (n = 0; n < 1000 && descriptors() > count; n++)
        nanosleep(&moment, NULL);
    return descriptors() <= count;
}

#define RUN(test)                                                                                  \
    do {                                                                                           \
        test();                                                                                    \
        printf("%s\n", #test);                                                                     \
        fflush(stdout);                                                                            \
    } while (0)

int main(void)
{
    int before;

    RUN(test_without_a_handle);
    RUN(test_null_handles);
    RUN(test_options);
    before = descriptors();
    RUN(test_sessions_and_handles);
    RUN(test_waits_and_replies);
    RUN(test_async_waits);
    RUN(test_time_limits);
    RUN(test_sharing);
    RUN(test_logons);
    RUN(test_statistics);
    RUN(test_destroy);
    CHECK(comes_down_to(before));
    RUN(test_signals);
    RUN(test_fork);
    RUN(test_threads);
    /* nng keeps a few for the process, once: those that a second time adds nothing to. */
    before = descriptors();
    RUN(test_fork);
    CHECK(comes_down_to(before));
    printf("all is well\n");
    return 0;
}
