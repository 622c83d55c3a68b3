/* Signals, forks and threads. */
#define _GNU_SOURCE
#include "host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <poll.h>

/* No handler is set, no mask changed, and no thread of ours takes a signal. */
void test_signals(void)
{
    struct sigaction before[65], after;
    sigset_t mask_before, mask_after;
    struct host host;
    ocbus_t *ocbus;
    struct dirent *entry;
    DIR *tasks;
    int number, threads = 0;

    memset(before, 0, sizeof(before));
    for (number = 1; number <= 64; number++)
        sigaction(number, NULL, &before[number]);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
    /* A resolver that does not answer, and an endpoint: all threads that there can be. */
    ocbus = create(&host, "resolver = --SERVER=127.0.0.1:1\nthreads = 2");
    OK(ocbus_session_open(ocbus, ONE, "bob", 1));
    for (number = 1; number <= 64; number++) {
        memset(&after, 0, sizeof(after));
        sigaction(number, NULL, &after);
        CHECK(after.sa_handler == before[number].sa_handler);
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    for (number = 1; number <= 64; number++)
        CHECK(sigismember(&mask_before, number) == sigismember(&mask_after, number));
    tasks = opendir("/proc/self/task");
    while ((entry = readdir(tasks)) != NULL) {
        unsigned long long blocked = 0;
        char path[300], line[256];
        FILE *status;

        if (entry->d_name[0] == '.' || atoi(entry->d_name) == (int)getpid())
            continue;
        sprintf(path, "/proc/self/task/%s/status", entry->d_name);
        status = fopen(path, "r");
        if (status == NULL)
            continue; /* it has ended */
        while (fgets(line, sizeof(line), status) != NULL)
            sscanf(line, "SigBlk: %llx", &blocked);
        fclose(status);
        threads++;
        for (number = 1; number <= 31; number++) {
            bool is_fault = number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL ||
                            number == SIGTRAP || number == SIGKILL || number == SIGSTOP;
            CHECK(OCBUS_UNDER_VALGRIND || is_fault || (blocked >> (number - 1) & 1) == 1);
        }
    }
    closedir(tasks);
    CHECK(threads >= 3); /* ours and nng's */
    OK(ocbus_destroy(ocbus));
}

/* In a child everything fails at once, and the parent goes on. */
void test_fork(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = --SERVER=127.0.0.1:1"), *other = NULL;
    ocbus_options *options = ocbus_options_new();
    ocbus_statistics now = { .size = sizeof(now) };
    ocbus_wait_answer answer;
    uint8_t octets[32];
    uint64_t wait;
    size_t written;
    pid_t child;
    int status;

    OK(ocbus_options_set_ids(options, ask_ids, &host));
    OK(ocbus_session_open(ocbus, ONE, "bob", 7));
    OK(ocbus_subscribe(ocbus, ONE, 0x29, 0, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
    park(ocbus, ONE, &host);
    fflush(stdout);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int fd;

        alarm(30);
        CHECK(ocbus_fd(ocbus) == -1 && ocbus_last_status() == OCBUS_ERROR_FORKED);
#define FORKED(call) FAILS(OCBUS_ERROR_FORKED, "forked", call)
        FORKED(ocbus_dispatch(ocbus));
        FORKED(ocbus_session_open(ocbus, TWO, "bob", 1));
        FORKED(ocbus_session_touch(ocbus, ONE));
        FORKED(ocbus_session_close(ocbus, ONE));
        FORKED(ocbus_subscribe(ocbus, ONE, 1, 0, 2, OCBUS_SCOPE_STORE, 0, 0));
        FORKED(ocbus_release(ocbus, ONE, 0x29));
        FORKED(ocbus_table_open_view(ocbus, ONE, 1));
        FORKED(ocbus_wait_park(ocbus, ONE, NULL, NULL, &wait, &answer));
        FORKED(ocbus_wait_cancel(ocbus, 1));
        FORKED(ocbus_wait_next(ocbus, &wait, NULL, &answer));
        FORKED(ocbus_take(ocbus, ONE, octets, 32, &written, NULL, NULL));
        FORKED(ocbus_tell_new_mail(ocbus, "bob", "INBOX", '/', 1, -1, -1));
        FORKED(ocbus_answer_unknown(ocbus, 1));
        FORKED(ocbus_statistics_read(ocbus, &now));
        FORKED(ocbus_create(options, &other));
        CHECK(other == NULL);
        fd = dup(0);
        close(fd);
        OK(ocbus_destroy(ocbus));
        CHECK(dup(0) < fd); /* the descriptor's number is free */
        /* What the threads had that are not here would be leaks. Errors before are told all the same. */
        if (OCBUS_UNDER_VALGRIND)
            execl("/bin/true", "true", (char *)NULL);
        exit(0); /* not _exit(): what runs at an exit must not hang either */
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tell(ocbus, 7);
    until(ocbus, &host.answers, 1);
    CHECK(host.last.outcome == OCBUS_OUTCOME_EVENT);
    OK(ocbus_destroy(ocbus));
    ocbus_options_free(options);
}

#define THREADS 4
#define ROUNDS 200

struct worker {
    const ocbus_t *ocbus;
    int number;
};

static void *work(void *data)
{
    struct worker *worker = data;
    uint8_t guid[16] = { 0x80 }, octets[512];
    ocbus_wait_answer answer;
    uint64_t wait;
    size_t written;
    int n;

    guid[1] = (uint8_t)worker->number;
    for (n = 0; n < ROUNDS; n++) {
        OK(ocbus_session_open(worker->ocbus, guid, "bob", 1));
        OK(ocbus_subscribe(worker->ocbus, guid, 1, 0, ALL_TYPES, OCBUS_SCOPE_STORE, 0, 0));
        OK(ocbus_wait_park(worker->ocbus, guid, NULL, NULL, &wait, &answer));
        tell(worker->ocbus, 1 + (uint32_t)n);
        OK(ocbus_take(worker->ocbus, guid, octets, sizeof(octets), &written, NULL, NULL));
        if (n % 2 == 0 && wait != 0)
            ocbus_wait_cancel(worker->ocbus, wait); /* it may be answered and fetched by now */
        CHECK(ocbus_session_touch(worker->ocbus, NONE) == OCBUS_ERROR_UNKNOWN_SESSION);
        CHECK(strstr(ocbus_last_error(), "unknown") != NULL);
        OK(ocbus_session_close(worker->ocbus, guid));
    }
    return NULL;
}

void test_threads(void)
{
    struct host host;
    ocbus_t *ocbus = create(&host, "resolver = none\nthreads = 2\nsessions_per_user = 10");
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    ocbus_wait_answer answer;
    uint64_t wait;
    int n;

    OK(ocbus_session_open(ocbus, ONE, "bob", 1)); /* so that there is always one */
    for (n = 0; n < THREADS; n++) {
        workers[n].ocbus = ocbus;
        workers[n].number = n;
        CHECK(pthread_create(&threads[n], NULL, work, &workers[n]) == 0);
    }
    /* This one dispatches, until all sessions of the others are closed. */
    for (n = 0; n < THREADS; n++) {
        while (pthread_tryjoin_np(threads[n], NULL) != 0) {
            readable(ocbus, 10);
            OK(ocbus_dispatch(ocbus));
            do
                OK(ocbus_wait_next(ocbus, &wait, NULL, &answer));
            while (wait != 0);
        }
    }
    CHECK(statistics(ocbus).sessions == 1 && statistics(ocbus).parked == 0);
    CHECK(statistics(ocbus).bus_published == THREADS * ROUNDS);
    OK(ocbus_destroy(ocbus));
}
