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

#include "settings.h"

struct openchange_plugin_settings {
	pool_t pool;
	const char *openchange_resolver;
	const char *openchange_cn;
	const char *openchange_backend;
	const char *openchange_budget;
	const char *openchange_keep_refused;
	const char *openchange_charset;
	const char *openchange_events;
	const char *openchange_folders;
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
	DEF(openchange_events),
	DEF(openchange_folders),
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
	.openchange_events = "",
	.openchange_folders = "",
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
		.events = VALUE(openchange_events),
		.folders = VALUE(openchange_folders),
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
	const struct openchange_settings plain = {
		.resolver = mail_user_plugin_getenv(user, "openchange_resolver"),
		.cn = mail_user_plugin_getenv(user, "openchange_cn"),
		.backend = mail_user_plugin_getenv(user, "openchange_backend"),
		.budget = mail_user_plugin_getenv(user, "openchange_budget"),
		.keep_refused = mail_user_plugin_getenv(user, "openchange_keep_refused"),
		.charset = mail_user_plugin_getenv(user, "openchange_charset"),
		.events = mail_user_plugin_getenv(user, "openchange_events"),
		.folders = mail_user_plugin_getenv(user, "openchange_folders"),
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

static const char *special_use(struct mailbox *box)
{
	return box->set == NULL ? NULL : box->set->special_use;
}

#endif

/* A timeout in the loop that runs whenever the process has nothing to do; others come and go within a call. NULL: there
   is none. (2.2 does not say which it is: what waits there is told at the end of the user.) */
#if OPENCHANGE_SINCE(2, 3)
#  define add_timeout(msecs, callback, context) \
	(io_loop_get_root() == NULL ? NULL : \
	 timeout_add_to(io_loop_get_root(), msecs, callback, context))
#else
#  define add_timeout(msecs, callback, context) \
	((void)(msecs), (void)(callback), (void)(context), (struct timeout *)NULL)
#endif

#endif
