/* A host with another Rust library and with nng of its own. Run by tests/programs.rs. */
#include <ocbus.h>

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <poll.h>
#include <stdio.h>

int other(void);

static void ask_ids(void *user, const ocbus_t *ocbus, const ocbus_query *query)
{
    (void)user;
    if (query->what == OCBUS_WHAT_FOLDER)
        ocbus_answer_folder(ocbus, query->id, 1);
    else
        ocbus_answer_failed(ocbus, query->id);
}

int main(void)
{
    const uint8_t session[OCBUS_GUID_OCTETS] = { 1 };
    ocbus_options *options = ocbus_options_new();
    ocbus_wait_answer answer;
    nng_socket socket;
    ocbus_t *ocbus;
    uint64_t wait;
    int seven;

    if (nng_pair0_open(&socket) != 0 || nng_listen(socket, "inproc://host", NULL, 0) != 0)
        return 2;
    seven = other();
    ocbus_options_set_ids(options, ask_ids, NULL);
    /* With an endpoint, which is nng's too. */
    if (ocbus_options_set(options, "resolver", "--SERVER=127.0.0.1:1") != OCBUS_OK ||
        ocbus_create(options, &ocbus) != OCBUS_OK) {
        fprintf(stderr, "%s\n", ocbus_last_error());
        return 3;
    }
    ocbus_options_free(options);
    if (ocbus_session_open(ocbus, session, "bob", 1) != OCBUS_OK ||
        ocbus_subscribe(ocbus, session, 1, 0, 0x7e, OCBUS_SCOPE_STORE, 0, 0) != OCBUS_OK ||
        ocbus_wait_park(ocbus, session, NULL, NULL, &wait, &answer) != OCBUS_OK || wait == 0)
        return 4;
    ocbus_tell_new_mail(ocbus, "bob", "INBOX", '/', 1, -1, -1);
    do {
        struct pollfd polled = { ocbus_fd(ocbus), POLLIN, 0 };

        if (poll(&polled, 1, 10000) != 1)
            return 5;
        ocbus_dispatch(ocbus);
        ocbus_wait_next(ocbus, &wait, NULL, &answer);
    } while (wait == 0);
    if (ocbus_destroy(ocbus) != OCBUS_OK || other() != seven)
        return 6;
    /* The host's own nng goes on. */
    if (nng_close(socket) != 0 || nng_pair0_open(&socket) != 0 || nng_close(socket) != 0)
        return 7;
    printf("%d and a mail\n", seven);
    return 0;
}
