/* SPDX-License-Identifier: Apache-2.0 */
/* See cmd_memory_fill(). Private and proportional memory as the kernel counts it. */
#include <string.h>

#include "client/cmd/json.h"

/* The broker may live in another pid namespace: its number must mean one of our programs here, too. */
static bool is_ours(long long pid)
{
	char path[64], name[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%lld/comm", pid);
	f = fopen(path, "re");
	if (f) {
		(void)!fgets(name, sizeof(name), f);
		fclose(f);
	}
	return strncmp(name, "pt2box", 6) == 0;
}

void cmd_memory_fill(json_t *process)
{
	long long pid = cmd_json_int(process, "pid"), kib, pss = -1, priv = 0;
	char path[64], line[128];
	FILE *f;

	if (pid <= 0 || cmd_json_int(process, "pss_bytes") >= 0 || !is_ours(pid))
		return;
	snprintf(path, sizeof(path), "/proc/%lld/smaps_rollup", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Pss: %lld", &kib) == 1)
			pss = kib * 1024;
		else if (sscanf(line, "Private_Clean: %lld", &kib) == 1 || sscanf(line, "Private_Dirty: %lld", &kib) == 1)
			priv += kib * 1024;
	}
	if (f)
		fclose(f);
	if (pss < 0)
		return;
	json_object_set_new(process, "pss_bytes", json_integer(pss));
	json_object_set_new(process, "private_bytes", json_integer(priv));
}
