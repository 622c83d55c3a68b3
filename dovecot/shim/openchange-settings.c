/* settings/libopenchange_settings.so: without it Dovecot 2.4 refuses every openchange_ setting, and to start. */

#include "lib.h"
#include "openchange-settings.h"

extern const struct setting_parser_info *const openchange_settings_set_infos[];
const struct setting_parser_info *const openchange_settings_set_infos[] = {
	&openchange_setting_parser_info,
	NULL
};

/* 2.4.0 and later compare it as they do a plugin's */
extern const char *const openchange_settings_version;
const char *const openchange_settings_version = DOVECOT_ABI_VERSION;
