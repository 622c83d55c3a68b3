/* Dovecot 2.4 and later: what the settings are called. Twice in its processes: in the plugin, which reads them, and in
   settings/libopenchange_settings.so, by which dovecot.conf is read. Empty is "not set". */
#ifndef OPENCHANGE_SETTINGS_H
#define OPENCHANGE_SETTINGS_H

#include "settings.h"

#include "openchange-shim.h"

struct openchange_plugin_settings {
	pool_t pool;
#define MEMBER(name) const char *openchange_##name;
	OPENCHANGE_SETTINGS(MEMBER)
#undef MEMBER
};

static const struct setting_define openchange_setting_defines[] = {
#define DEFINE(name) \
	SETTING_DEFINE_STRUCT_STR("openchange_" #name, openchange_##name, \
				  struct openchange_plugin_settings),
	OPENCHANGE_SETTINGS(DEFINE)
#undef DEFINE
	SETTING_DEFINE_LIST_END
};

static const struct openchange_plugin_settings openchange_default_settings = {
#define EMPTY(name) .openchange_##name = "",
	OPENCHANGE_SETTINGS(EMPTY)
#undef EMPTY
};

static const struct setting_parser_info openchange_setting_parser_info = {
	.name = "openchange",
	.plugin_dependency = "lib90_openchange_plugin",
	.defines = openchange_setting_defines,
	.defaults = &openchange_default_settings,
	.struct_size = sizeof(struct openchange_plugin_settings),
	.pool_offset1 = 1 + offsetof(struct openchange_plugin_settings, pool),
};

#endif
