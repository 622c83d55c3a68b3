/* The only file that knows Dovecot's structs. It reads them and hands plain values to Rust; it decides
   nothing but what counts as a delivery. Written for 2.2.9 to 2.4; what differs stands in the first part. */

/* clock_gettime, nanosleep, lstat */
#ifndef _GNU_SOURCE
#  define _GNU_SOURCE
#endif

#include "lib.h"
#include "array.h"
#include "seq-range-array.h"
#include "module-context.h"
#include "mail-user.h"
#include "mail-namespace.h"
#include "mailbox-list.h"
#include "mail-storage-private.h"
#include "mail-storage-hooks.h"
#include "notify-plugin.h"

#include "openchange-shim.h"

#include <sys/stat.h>
#include <time.h>

/* -- What differs between Dovecot's versions -- */

#ifndef DOVECOT_VERSION_MAJOR
#  define DOVECOT_VERSION_MAJOR 2
#  define DOVECOT_VERSION_MINOR 2
#endif
#define OPENCHANGE_SINCE(major, minor) \
	(DOVECOT_VERSION_MAJOR > (major) || \
	 (DOVECOT_VERSION_MAJOR == (major) && DOVECOT_VERSION_MINOR >= (minor)))

#if OPENCHANGE_SINCE(2, 4)

#include "settings.h"

struct openchange_plugin_settings {
	pool_t pool;
	const char *openchange_resolver;
	const char *openchange_cn;
	const char *openchange_backend;
	const char *openchange_budget;
	const char *openchange_keep_refused;
	const char *openchange_charset;
	const char *openchange_bus;
};

#define DEF(name) \
	SETTING_DEFINE_STRUCT_STR(#name, name, struct openchange_plugin_settings)
static const struct setting_define openchange_setting_defines[] = {
	DEF(openchange_resolver),
	DEF(openchange_cn),
	DEF(openchange_backend),
	DEF(openchange_budget),
	DEF(openchange_keep_refused),
	DEF(openchange_charset),
	DEF(openchange_bus),
	SETTING_DEFINE_LIST_END
};
#undef DEF

/* Empty is "not set": the defaults stand in Rust, once. */
static const struct openchange_plugin_settings openchange_default_settings = {
	.openchange_resolver = "",
	.openchange_cn = "",
	.openchange_backend = "",
	.openchange_budget = "",
	.openchange_keep_refused = "",
	.openchange_charset = "",
	.openchange_bus = "",
};

/* 2.4 also wants a module settings/libopenchange_settings.so that exports
   openchange_settings_set_infos[] = { &openchange_setting_parser_info, NULL }. */
extern const struct setting_parser_info openchange_setting_parser_info;
const struct setting_parser_info openchange_setting_parser_info = {
	.name = "openchange",
	.plugin_dependency = "lib90_openchange_plugin",
	.defines = openchange_setting_defines,
	.defaults = &openchange_default_settings,
	.struct_size = sizeof(struct openchange_plugin_settings),
	.pool_offset1 = 1 + offsetof(struct openchange_plugin_settings, pool),
};

static void *user_new(const struct openchange_callbacks *rust,
		      struct mail_user *user, bool debug)
{
	const struct openchange_plugin_settings *set;
	const char *error;
	void *rust_user;

	if (settings_get(user->event, &openchange_setting_parser_info, 0,
			 &set, &error) < 0) {
		i_warning("openchange: settings: %s", error);
		return NULL;
	}
#define VALUE(name) (*set->name == '\0' ? NULL : set->name)
	const struct openchange_settings plain = {
		.resolver = VALUE(openchange_resolver),
		.cn = VALUE(openchange_cn),
		.backend = VALUE(openchange_backend),
		.budget = VALUE(openchange_budget),
		.keep_refused = VALUE(openchange_keep_refused),
		.charset = VALUE(openchange_charset),
		.bus = VALUE(openchange_bus),
	};
#undef VALUE
	rust_user = rust->user_new(user->username, debug, &plain);
	settings_free(set);
	return rust_user;
}

static bool user_debug(struct mail_user *user)
{
	return event_want_debug(user->event);
}

static void unregister(struct notify_context **context)
{
	notify_unregister(context);
}

#else

static void *user_new(const struct openchange_callbacks *rust,
		      struct mail_user *user, bool debug)
{
	const struct openchange_settings plain = {
		.resolver = mail_user_plugin_getenv(user, "openchange_resolver"),
		.cn = mail_user_plugin_getenv(user, "openchange_cn"),
		.backend = mail_user_plugin_getenv(user, "openchange_backend"),
		.budget = mail_user_plugin_getenv(user, "openchange_budget"),
		.keep_refused = mail_user_plugin_getenv(user, "openchange_keep_refused"),
		.charset = mail_user_plugin_getenv(user, "openchange_charset"),
		.bus = mail_user_plugin_getenv(user, "openchange_bus"),
	};

	return rust->user_new(user->username, debug, &plain);
}

static bool user_debug(struct mail_user *user)
{
	return user->mail_debug;
}

static void unregister(struct notify_context **context)
{
	notify_unregister(*context);
	*context = NULL;
}

#endif

/* -- Users -- */

#define OPENCHANGE_USER_CONTEXT(obj) \
	MODULE_CONTEXT(obj, openchange_user_module)

struct openchange_user {
	union mail_user_module_context module_ctx;
	/* Rust's; never NULL */
	void *rust;
};

static MODULE_CONTEXT_DEFINE_INIT(openchange_user_module,
				  &mail_user_module_register);
static const struct openchange_callbacks *rust;
static struct notify_context *notify;

static void user_deinit(struct mail_user *user)
{
	struct openchange_user *ouser = OPENCHANGE_USER_CONTEXT(user);

	/* closes the user's mailboxes: no transaction is left afterwards */
	ouser->module_ctx.super.deinit(user);
	rust->user_free(ouser->rust);
	ouser->rust = NULL;
}

static void user_created(struct mail_user *user)
{
	struct mail_user_vfuncs *v = user->vlast;
	struct openchange_user *ouser;
	void *rust_user;

	/* e.g. the "raw mail user" from whom LDA and LMTP copy the mail */
	if (user->autocreated)
		return;
	T_BEGIN {
		rust_user = user_new(rust, user, user_debug(user));
	} T_END;
	if (rust_user == NULL)
		return;

	ouser = p_new(user->pool, struct openchange_user, 1);
	ouser->rust = rust_user;
	ouser->module_ctx.super = *v;
	user->vlast = &ouser->module_ctx.super;
	v->deinit = user_deinit;
	MODULE_CONTEXT_SET(user, openchange_user_module, ouser);
}

/* -- Transactions -- */

struct openchange_txn {
	struct mailbox_transaction_context *t;
	struct mailbox *box;
	struct openchange_user *user;
	/* made by the first mail */
	pool_t pool;
	ARRAY(struct openchange_mail) mails;
	uint64_t waited_us;
};

static void *transaction_begin(struct mailbox_transaction_context *t)
{
	struct mailbox *box = t->box;
	struct openchange_user *ouser;
	struct openchange_txn *txn;

	if ((box->flags & MAILBOX_FLAG_POST_SESSION) == 0)
		return NULL;
	ouser = OPENCHANGE_USER_CONTEXT(box->storage->user);
	if (ouser == NULL)
		return NULL;

	txn = i_new(struct openchange_txn, 1);
	txn->t = t;
	txn->box = box;
	txn->user = ouser;
	return txn;
}

static uint64_t monotonic_us(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_MONOTONIC, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Whether the list of UIDs of a Maildir is locked. */
static bool uidlist_is_locked(struct mailbox *box)
{
	const char *dir, *path;
	struct stat st;

	if (strcmp(box->storage->name, "maildir") != 0 ||
	    mailbox_get_path_to(box, MAILBOX_LIST_PATH_TYPE_CONTROL, &dir) <= 0)
		return FALSE;
	path = t_strconcat(dir, "/dovecot-uidlist.lock", NULL);
	return lstat(path, &st) == 0;
}

/* Asks for the UIDs of what this transaction saves. A Maildir whose list of UIDs is locked at commit (two
   deliveries at once) would store the mail without telling its UID. But once asked, Dovecot waits for that lock, for
   two minutes if need be, and fails the delivery then: so it is asked only while the lock is free, which is waited
   for within half of the budget. Without it the event has no UID. */
static void want_uids(struct openchange_txn *txn)
{
	const struct timespec nap = { .tv_sec = 0, .tv_nsec = 500000 };
	uint64_t begun = monotonic_us(), limit;
	bool locked;

	limit = rust->budget_us(txn->user->rust) / 2;
	while ((locked = uidlist_is_locked(txn->box)) &&
	       monotonic_us() - begun < limit)
		(void)nanosleep(&nap, NULL);
	txn->waited_us = monotonic_us() - begun;
	if (!locked)
		txn->t->flags |= MAILBOX_TRANSACTION_FLAG_ASSIGN_UIDS;
}

static const char *header(pool_t pool, struct mail *mail, const char *name)
{
	const char *value;

	if (mail_get_first_header(mail, name, &value) <= 0)
		return NULL;
	/* Rust cuts it at a character: a few octets more than its limit */
	return p_strndup(pool, value, 520);
}

static void mail_save(void *context, struct mail *mail)
{
	struct openchange_txn *txn = context;
	struct openchange_mail *one;
	uoff_t size;

	if (txn == NULL)
		return;
	if (txn->pool == NULL) {
		txn->pool = pool_alloconly_create("openchange transaction", 2048);
		p_array_init(&txn->mails, txn->pool, 1);
		T_BEGIN {
			want_uids(txn);
		} T_END;
	}
	one = array_append_space(&txn->mails);
	T_BEGIN {
		one->from = header(txn->pool, mail, "From");
		one->subject = header(txn->pool, mail, "Subject");
		one->message_id = header(txn->pool, mail, "Message-ID");
		one->flags = mail_get_flags(mail) &
			(MAIL_ANSWERED | MAIL_FLAGGED | MAIL_DELETED |
			 MAIL_SEEN | MAIL_DRAFT);
		one->size = mail_get_physical_size(mail, &size) < 0 ?
			UINT64_MAX : size;
	} T_END;
}

static void mail_copy(void *context, struct mail *src ATTR_UNUSED,
		      struct mail *dst)
{
	/* only a delivery has a context: a copy in it is a new mail too */
	mail_save(context, dst);
}

static void transaction_free(struct openchange_txn *txn)
{
	/* 2.2's pool_unref takes no NULL */
	if (txn->pool != NULL)
		pool_unref(&txn->pool);
	i_free(txn);
}

static void transaction_rollback(void *context)
{
	if (context != NULL)
		transaction_free(context);
}

static void assign_uids(struct openchange_txn *txn,
			const struct mail_transaction_commit_changes *changes)
{
	struct openchange_mail *mails;
	struct seq_range_iter iter;
	unsigned int count, i;
	uint32_t uid;

	mails = array_get_modifiable(&txn->mails, &count);
	/* no UID is better than another mail's */
	if (!array_is_created(&changes->saved_uids) ||
	    seq_range_count(&changes->saved_uids) != count)
		return;
	seq_range_array_iter_init(&iter, &changes->saved_uids);
	for (i = 0; i < count; i++) {
		if (seq_range_array_iter_nth(&iter, i, &uid))
			mails[i].uid = uid;
	}
}

static void transaction_commit(void *context,
			       struct mail_transaction_commit_changes *changes)
{
	struct openchange_txn *txn = context;
	struct mailbox_status status;

	if (txn == NULL)
		return;
	if (txn->pool != NULL) T_BEGIN {
		struct openchange_delivery delivery;
		unsigned int count;

		assign_uids(txn, changes);
		memset(&delivery, 0, sizeof(delivery));
		delivery.mailbox = mailbox_get_vname(txn->box);
		delivery.separator = mail_namespace_get_sep(
			mailbox_get_namespace(txn->box));
		delivery.storage_name = mailbox_get_name(txn->box);
		delivery.list_separator =
			mailbox_list_get_hierarchy_sep(txn->box->list);
		delivery.waited_us = txn->waited_us;
		delivery.uid_validity = changes->uid_validity;
		if (delivery.uid_validity == 0) {
			mailbox_get_open_status(txn->box, STATUS_UIDVALIDITY,
						&status);
			delivery.uid_validity = status.uidvalidity;
		}
		delivery.mails = array_get(&txn->mails, &count);
		delivery.count = count;
		rust->deliver(txn->user->rust, &delivery);
	} T_END;
	transaction_free(txn);
}

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

static const struct notify_vfuncs openchange_vfuncs = {
	.mail_transaction_begin = transaction_begin,
	.mail_save = mail_save,
	.mail_copy = mail_copy,
	.mail_transaction_commit = transaction_commit,
	.mail_transaction_rollback = transaction_rollback,
};

static struct mail_storage_hooks openchange_hooks = {
	.mail_user_created = user_created,
};

void openchange_shim_init(struct module *module,
			  const struct openchange_callbacks *callbacks)
{
	rust = callbacks;
	notify = notify_register(&openchange_vfuncs);
	mail_storage_hooks_add(module, &openchange_hooks);
}

void openchange_shim_deinit(void)
{
	mail_storage_hooks_remove(&openchange_hooks);
	if (notify != NULL)
		unregister(&notify);
}
