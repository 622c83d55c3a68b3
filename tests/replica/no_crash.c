/* Preloaded into the IMAP processes of the Maildir replica. Dovecot (2.3.19 and 2.4.1) gives NULL to this function of its own
 * where a message that others have expunged is found while one is saved (maildir-save.c begins the index's sync without a
 * maildir_sync_context, maildir-sync-index.c marks it racing), and dies of it. Under this test's load that is once in some
 * minutes. (Where Dovecot's libraries are linked with -Bsymbolic-functions, as Ubuntu does by default, this changes nothing.) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

struct maildir_sync_context;

void maildir_sync_set_racing(struct maildir_sync_context *ctx)
{
    void (*theirs)(struct maildir_sync_context *);

    if (ctx == NULL)
        return;
    *(void **)&theirs = dlsym(RTLD_NEXT, "maildir_sync_set_racing");
    theirs(ctx);
}
