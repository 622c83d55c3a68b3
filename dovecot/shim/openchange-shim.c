/* With the headers that it includes, the only file that knows Dovecot's structs. It reads them and hands plain values to Rust; it decides nothing but
   what counts as a delivery, and whose a mailbox is. Written for 2.2.9 to 2.4; what differs stands in
   openchange-versions.h. */

/* clock_gettime, nanosleep, lstat */
#ifndef _GNU_SOURCE
#  define _GNU_SOURCE
#endif

#include "lib.h"
#include "array.h"
#include "llist.h"
#include "ioloop.h"
#include "seq-range-array.h"
#include "module-context.h"
#include "mail-user.h"
#include "mail-namespace.h"
#include "mailbox-list-private.h"
#include "mail-transaction-log.h"
#include "mail-index-private.h"
#include "mail-index-view-private.h"
#include "mail-index-transaction-private.h"
#include "mail-storage-private.h"
#include "mail-storage-hooks.h"
#include "notify-plugin.h"

#include "openchange-shim.h"
#include "openchange-versions.h"

#include <sys/stat.h>
#include <time.h>

static const struct openchange_callbacks *rust;
static struct notify_context *notify;

/* -- Users -- */

#define OPENCHANGE_USER_CONTEXT(obj) \
	MODULE_CONTEXT(obj, openchange_user_module)

struct openchange_user {
	union mail_user_module_context module_ctx;
	struct openchange_user *prev, *next;
	struct mail_user *user;
	/* Rust's; never NULL */
	void *rust;
	/* when Rust wants to be called */
	struct timeout *tick;
	/* its mailboxes are not those of its login: see namespaces_created */
	bool elsewhere;
	/* the administrator has names escaped */
	bool escapes_names;
};

static MODULE_CONTEXT_DEFINE_INIT(openchange_user_module,
				  &mail_user_module_register);

/* All that are ours. */
static struct openchange_user *live_users;

static void later(struct openchange_user *ouser);

static void tick(struct openchange_user *ouser)
{
	timeout_remove(&ouser->tick);
	T_BEGIN {
		rust->tick(ouser->rust);
	} T_END;
	later(ouser);
}

/* Has Rust called when it wants to be, and Dovecot has nothing to do. Processes that never have nothing to do (doveadm)
   tell the rest at the end of the user. */
static void later(struct openchange_user *ouser)
{
	uint32_t wake = rust->wake_ms(ouser->rust);

	if (ouser->tick != NULL)
		timeout_remove(&ouser->tick);
	if (wake != UINT32_MAX)
		ouser->tick = add_timeout(wake, tick, ouser);
}

static void user_deinit(struct mail_user *user)
{
	struct openchange_user *ouser = OPENCHANGE_USER_CONTEXT(user);

	/* closes the user's mailboxes: no transaction is left afterwards */
	ouser->module_ctx.super.deinit(user);
	if (ouser->tick != NULL)
		timeout_remove(&ouser->tick);
	DLLIST_REMOVE(&live_users, ouser);
	rust->user_free(ouser->rust);
	ouser->rust = NULL;
}

static void user_created(struct mail_user *user)
{
	struct mail_user_vfuncs *v = user->vlast;
	struct openchange_user *ouser;
	void *rust_user;

	/* e.g. the "raw mail user" from whom LDA and LMTP copy the mail, and owners of shared mailboxes */
	if (user->autocreated)
		return;
	T_BEGIN {
		rust_user = user_new(rust, user, user_debug(user));
	} T_END;
	if (rust_user == NULL)
		return;

	ouser = p_new(user->pool, struct openchange_user, 1);
	ouser->user = user;
	ouser->rust = rust_user;
	DLLIST_PREPEND(&live_users, ouser);
	ouser->module_ctx.super = *v;
	user->vlast = &ouser->module_ctx.super;
	v->deinit = user_deinit;
	MODULE_CONTEXT_SET(user, openchange_user_module, ouser);
}

static const struct mail_namespace *inbox_namespace(const struct mail_user *user)
{
	const struct mail_namespace *ns;

	for (ns = user->namespaces; ns != NULL; ns = ns->next) {
		if ((ns->flags & NAMESPACE_FLAG_INBOX_USER) != 0)
			return ns;
	}
	return user->namespaces;
}

static bool same_path(const struct mail_namespace *one,
		      const struct mail_namespace *other,
		      enum mailbox_list_path_type type)
{
	const char *path = "", *other_path = "";

	if (!mailbox_list_get_root_path(one->list, type, &path))
		path = "";
	if (!mailbox_list_get_root_path(other->list, type, &other_path))
		other_path = "";
	return strcmp(path, other_path) == 0;
}

/* As dsync sees it too. */
static bool same_place(const struct mail_user *one, const struct mail_user *other)
{
	const struct mail_namespace *inbox = inbox_namespace(one),
		*other_inbox = inbox_namespace(other);

	return inbox == NULL || other_inbox == NULL ||
		(same_path(inbox, other_inbox, MAILBOX_LIST_PATH_TYPE_MAILBOX) &&
		 same_path(inbox, other_inbox, MAILBOX_LIST_PATH_TYPE_INDEX));
}

/* "doveadm backup" and "sync" make a second user of the same login with another mail_location, while the first is there: a
   copy of the mailboxes, or where they are copied from. What happens to it happens to no mailbox of the login's. (LMTP
   has two of one login too, for two addresses in one transaction. Only doveadm has a second one that is not real: where
   others have two, the login may just have been moved.) */
static void namespaces_created(struct mail_namespace *namespaces)
{
	struct mail_user *user = namespaces->user;
	struct openchange_user *ouser = OPENCHANGE_USER_CONTEXT(user), *other;
	const struct mail_namespace *ns;
	bool is_doveadm;

	if (ouser == NULL)
		return;
	is_doveadm = user->service != NULL &&
		strcmp(user->service, "doveadm") == 0;
	for (other = live_users; other != NULL; other = other->next) {
		if (is_doveadm && other != ouser && !other->elsewhere &&
		    strcmp(other->user->username, user->username) == 0) T_BEGIN {
			if (!same_place(user, other->user))
				ouser->elsewhere = TRUE;
		} T_END;
	}
	/* before dsync has them escaped */
	for (ns = namespaces; ns != NULL; ns = ns->next) {
		if (escape_char(ns->list) != '\0')
			ouser->escapes_names = TRUE;
	}
}

/* Each uses what stands before it. */
#include "openchange-mailboxes.h"
#include "openchange-marks.h"
#include "openchange-transactions.h"
#include "openchange-found.h"

/* -- Dovecot's log, and the module -- */

void openchange_shim_log(int level, const char *line)
{
	switch (level) {
	case OPENCHANGE_LEVEL_DEBUG:
		i_debug("%s", line);
		break;
	case OPENCHANGE_LEVEL_INFO:
		i_info("%s", line);
		break;
	default:
		i_warning("%s", line);
		break;
	}
}

/* An update of a mailbox is seen in box_update. */
static const struct notify_vfuncs openchange_vfuncs = {
	.mail_transaction_begin = transaction_begin,
	.mail_save = mail_save,
	.mail_copy = mail_copy,
	.mail_expunge = mail_expunge_begin,
	.mail_transaction_commit = transaction_commit,
	.mail_transaction_rollback = transaction_rollback,
	.mailbox_create = mailbox_created,
	.mailbox_delete_begin = mailbox_delete_begin,
	.mailbox_delete_commit = mailbox_delete_commit,
	.mailbox_delete_rollback = mailbox_delete_rollback,
	.mailbox_rename = mailbox_renamed,
	.mailbox_set_subscribed = mailbox_subscribed,
};

static struct mail_storage_hooks openchange_hooks = {
	.mail_user_created = user_created,
	.mail_namespaces_created = namespaces_created,
	.mailbox_allocated = mailbox_allocated,
	FOUND_HOOKS
	.mail_allocated = mail_allocated,
};

void openchange_shim_init(struct module *module,
			  const struct openchange_callbacks *callbacks)
{
	rust = callbacks;
	notify = notify_register(&openchange_vfuncs);
	mail_storage_hooks_add(module, &openchange_hooks);
	found_register();
}

void openchange_shim_deinit(void)
{
	found_unregister();
	mail_storage_hooks_remove(&openchange_hooks);
	if (notify != NULL)
		unregister(&notify);
}
