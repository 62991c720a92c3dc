/* SPDX-License-Identifier: Apache-2.0 */
/* See cmd_memory_fill(). */
#include <string.h>

#include "client/cmd/json.h"
#include "ipc/process_memory.h"

/* The broker may live in another pid namespace: its number must mean one of our programs here, too. */
static bool is_ours(int64_t pid)
{
	char path[64], name[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%lld/comm", (long long)pid);
	f = fopen(path, "re");
	if (f) {
		(void)!fgets(name, sizeof(name), f);
		fclose(f);
	}
	return strncmp(name, "pt2box", 6) == 0;
}

void cmd_memory_fill(json_t *process)
{
	struct pb_process_memory mem;
	int64_t pid = cmd_json_int(process, "pid");

	if (pid <= 0 || cmd_json_int(process, "pss_bytes") >= 0 || !is_ours(pid) || !pb_process_memory(pid, &mem))
		return;
	json_object_set_new(process, "pss_bytes", json_integer(mem.pss_bytes));
	json_object_set_new(process, "private_bytes", json_integer(mem.private_bytes));
}
