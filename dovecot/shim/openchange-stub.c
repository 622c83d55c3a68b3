/* Stands in for openchange-shim.c where there is no Dovecot: in tests and benchmarks, which link the rlib.
   Weak, so that the real ones win in the plugin. */
#include "openchange-shim.h"

__attribute__((weak)) void
openchange_shim_init(struct module *module, const struct openchange_callbacks *callbacks)
{
	(void)module;
	(void)callbacks;
}

__attribute__((weak)) void openchange_shim_deinit(void)
{
}

__attribute__((weak)) void openchange_shim_log(int level, const char *line)
{
	(void)level;
	(void)line;
}
