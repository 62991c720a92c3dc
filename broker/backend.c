/* SPDX-License-Identifier: Apache-2.0 */
/* Which backend runs a package: native where it has everything, else PyTorch's library where it is installed. */
#include <stdio.h>
#include <string.h>

#include "broker/broker.h"
#include "ipc/manifest.h"

bool pb_calls_others(const struct pb_manifest *mf)
{
	for (uint32_t i = 0; mf->nodes && i < mf->nodes->n; i++)
		if (!mf->nodes->list[i].native)
			return true;
	return false;
}

/* Calls by name that are not native: the ops process looks whether the plugin has each operator. */
static bool is_for_plugin(const struct pb_manifest *mf, const struct pb_import *im)
{
	return pb_calls_others(mf) && strcmp(im->name, "aoti_torch_proxy_executor_call_function") == 0;
}

/* The imports that the native runtime lacks, as text; returns how many. */
static uint32_t list_lacking(const struct pb_manifest *mf, bool plugin, char *list, size_t cap)
{
	uint32_t n = 0;

	list[0] = '\0';
	for (uint32_t i = 0; i < mf->n_imports; i++) {
		size_t used = strlen(list);

		if (mf->imports[i].state != PB_SHIM_IS_ABSENT && mf->imports[i].state != PB_SHIM_IS_PROXIED)
			continue;
		if (plugin && is_for_plugin(mf, &mf->imports[i]))
			continue;
		n++;
		snprintf(list + used, cap - used, "%s%s%s%s", used ? "; " : "", mf->imports[i].name,
			 mf->imports[i].note[0] ? ": " : "", mf->imports[i].note);
	}
	return n;
}

pb_status pb_choose_backend(const char *wanted, const struct pb_manifest *mf, bool plugin, const struct pb_torch_place *torch,
			    char ret[16], struct pt2box_error *err)
{
	char list[300];
	uint32_t n = list_lacking(mf, plugin, list, sizeof(list));
	bool any = strcmp(wanted, "auto") == 0;

	if (strcmp(wanted, "torch") == 0 || (any && n && torch->path[0])) {
		if (!torch->path[0])
			return pb_error_set(err, PT2BOX_UNSUPPORTED, "backend torch: %s", torch->text);
		strcpy(ret, "torch");
		return PT2BOX_OK;
	}
	if (n)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the native runtime lacks %u function%s: %s%s%s", n,
				    n == 1 ? "" : "s", list, any ? "; and " : "", any ? torch->text : "");
	strcpy(ret, "native");
	return PT2BOX_OK;
}
