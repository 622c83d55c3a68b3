/*
 * Asks libmemcached. A line of answers for each question; octets in hex, "-" for nothing.
 *
 *   oracle describe KEY...        configuration strings on standard input, a NUL behind each;
 *                                 "refused", or: namespace, servers as name:port, index of each key
 *   oracle hash NAME KEY...       the hash of each key
 *   oracle store CONFIG KEY...    stores each key with itself as value; the library's return codes
 *   oracle fetch CONFIG KEY...    reads each key; the values
 *   oracle insist CONFIG KEY...   stores each key as often as it takes, at most for a minute; how many seconds it took
 *
 * Part of ocbus, MIT OR Apache-2.0.
 */
#include <libhashkit-1.0/hashkit.h>
#include <libmemcached/memcached.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void print_hex(const char *octets, size_t length)
{
    if (length == 0)
        putchar('-');
    for (size_t at = 0; at < length; at++)
        printf("%02x", (unsigned char)octets[at]);
}

static memcached_return_t print_server(const memcached_st *client, const memcached_instance_st *server, void *context)
{
    const char *name = memcached_server_name(server);
    (void)client;
    (void)context;
    putchar(' ');
    print_hex(name, strlen(name));
    printf(":%u", (unsigned)memcached_server_port(server));
    return MEMCACHED_SUCCESS;
}

static void describe(const char *config, size_t length, char **keys)
{
    memcached_server_fn print[] = {print_server};
    memcached_st *client = memcached(config, length);
    const char *name;

    if (client == NULL) {
        puts("refused");
        return;
    }
    name = memcached_callback_get(client, MEMCACHED_CALLBACK_NAMESPACE, NULL);
    print_hex(name, name == NULL ? 0 : strlen(name));
    memcached_server_cursor(client, print, NULL, 1);
    for (; *keys != NULL && memcached_server_count(client) > 0; keys++)
        printf(" %u", memcached_generate_hash(client, *keys, strlen(*keys)));
    putchar('\n');
    memcached_free(client);
}

static int describe_all(char **keys)
{
    char *config = NULL;
    size_t room = 0;
    ssize_t length;

    while ((length = getdelim(&config, &room, 0, stdin)) > 1)
        describe(config, (size_t)length - 1, keys);
    free(config);
    return 0;
}

static int hash(const char *name, char **keys)
{
    for (int number = 0; number < HASHKIT_HASH_MAX; number++) {
        const char *known = libhashkit_string_hash((hashkit_hash_algorithm_t)number);

        if (strcmp(known, name) != 0)
            continue;
        for (; *keys != NULL; keys++)
            printf("%u\n", libhashkit_digest(*keys, strlen(*keys), (hashkit_hash_algorithm_t)number));
        return 0;
    }
    return 2;
}

static int talk(const char *what, const char *config, char **keys)
{
    memcached_st *client = memcached(config, strlen(config));

    if (client == NULL)
        return 2;
    for (; *keys != NULL; keys++) {
        size_t length = strlen(*keys);

        if (strcmp(what, "store") == 0) {
            printf("%d\n", memcached_set(client, *keys, length, *keys, length, 0, 0));
        } else {
            size_t got = 0;
            uint32_t flags;
            memcached_return_t status;
            char *value = memcached_get(client, *keys, length, &got, &flags, &status);

            print_hex(value, value == NULL ? 0 : got);
            putchar('\n');
            free(value);
        }
    }
    memcached_free(client);
    return 0;
}

static int insist(const char *config, char **keys)
{
    memcached_st *client = memcached(config, strlen(config));
    const struct timespec pause = {0, 20 * 1000 * 1000};
    const time_t begun = time(NULL);

    if (client == NULL)
        return 2;
    for (; *keys != NULL; keys++) {
        size_t length = strlen(*keys);

        while (memcached_set(client, *keys, length, *keys, length, 0, 0) != MEMCACHED_SUCCESS) {
            if (time(NULL) - begun > 60)
                return 3;
            nanosleep(&pause, NULL);
        }
    }
    printf("%ld\n", (long)(time(NULL) - begun));
    memcached_free(client);
    return 0;
}

int main(int count, char **arguments)
{
    if (count >= 2 && strcmp(arguments[1], "describe") == 0)
        return describe_all(arguments + 2);
    if (count >= 3 && strcmp(arguments[1], "hash") == 0)
        return hash(arguments[2], arguments + 3);
    if (count >= 3 && strcmp(arguments[1], "insist") == 0)
        return insist(arguments[2], arguments + 3);
    if (count >= 3)
        return talk(arguments[1], arguments[2], arguments + 3);
    return 2;
}
