/* What differs between Dovecot's versions, 2.2.9 to 2.4. Included by openchange-shim.c alone. */
#ifndef OPENCHANGE_VERSIONS_H
#define OPENCHANGE_VERSIONS_H

#ifndef DOVECOT_VERSION_MAJOR
#  define DOVECOT_VERSION_MAJOR 2
#  define DOVECOT_VERSION_MINOR 2
#endif
#define OPENCHANGE_SINCE(major, minor) \
	(DOVECOT_VERSION_MAJOR > (major) || \
	 (DOVECOT_VERSION_MAJOR == (major) && DOVECOT_VERSION_MINOR >= (minor)))

/* 2.2 has it without the check that there is one */
#ifndef MODULE_CONTEXT_REQUIRE
#  define MODULE_CONTEXT_REQUIRE MODULE_CONTEXT
#endif

#if OPENCHANGE_SINCE(2, 4)

#include "openchange-settings.h"

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
	/* empty is "not set": the defaults stand in Rust, once */
#define VALUE(name) \
	.name = *set->openchange_##name == '\0' ? NULL : set->openchange_##name,
	const struct openchange_settings plain = {
		OPENCHANGE_SETTINGS(VALUE)
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

static const char *special_use(struct mailbox *box)
{
	const struct mailbox_settings *set = box->set;

	if (set == NULL || array_is_empty(&set->special_use))
		return NULL;
	return t_strarray_join(settings_boollist_get(&set->special_use), " ");
}

#else

static void *user_new(const struct openchange_callbacks *rust,
		      struct mail_user *user, bool debug)
{
#define VALUE(name) \
	.name = mail_user_plugin_getenv(user, "openchange_" #name),
	const struct openchange_settings plain = {
		OPENCHANGE_SETTINGS(VALUE)
	};
#undef VALUE

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

static const char *special_use(struct mailbox *box)
{
	return box->set == NULL ? NULL : box->set->special_use;
}

#endif

/* The first ones of 2.2 do not say why it cannot be read; build.rs has looked. */
#ifdef OPENCHANGE_LOG_WITHOUT_REASON
#  define log_view_set(view, seq1, offset1, seq2, offset2, reset, reason) \
	((void)(reason), mail_transaction_log_view_set(view, seq1, offset1, seq2, \
						       offset2, reset))
#else
#  define log_view_set mail_transaction_log_view_set
#endif

/* By which names are escaped where clients could not ask for them otherwise; 0: they are not. And a mailbox's name
   without that, on the data stack. (Before 2.3.14 names are not escaped; build.rs has looked.) */
#if OPENCHANGE_SINCE(2, 4)

static char escape_char(const struct mailbox_list *list)
{
	return list->mail_set->mailbox_list_visible_escape_char[0];
}

static const char *plain_vname(struct mailbox_list *list, const char *name)
{
	const struct mail_storage_settings *set = list->mail_set;
	struct mail_storage_settings plain = *set;

	plain.mailbox_list_visible_escape_char = "";
	list->mail_set = &plain;
	name = t_strdup(mailbox_list_get_vname(list, name));
	list->mail_set = set;
	return name;
}

#elif defined(OPENCHANGE_VNAME_ESCAPE)

static char escape_char(const struct mailbox_list *list)
{
	return list->set.vname_escape_char;
}

static const char *plain_vname(struct mailbox_list *list, const char *name)
{
	char escape = list->set.vname_escape_char;

	list->set.vname_escape_char = '\0';
	name = t_strdup(mailbox_list_get_vname(list, name));
	list->set.vname_escape_char = escape;
	return name;
}

#else

static char escape_char(const struct mailbox_list *list)
{
	(void)list;
	return '\0';
}

static const char *plain_vname(struct mailbox_list *list, const char *name)
{
	return mailbox_list_get_vname(list, name);
}

#endif

/* A timeout in the loop that runs whenever the process has nothing to do; others come and go within a call. NULL: there
   is none. (2.2 does not say which it is: what waits there is told at the end of the user.) */
#if OPENCHANGE_SINCE(2, 3)
#  define add_timeout(msecs, callback, context) \
	(current_ioloop == NULL ? NULL : \
	 timeout_add_to(io_loop_get_root(), msecs, callback, context))
#else
#  define add_timeout(msecs, callback, context) \
	((void)(msecs), (void)(callback), (void)(context), (struct timeout *)NULL)
#endif

#endif
