/* SPDX-License-Identifier: Apache-2.0 */
/* See process_memory.h. */
#include "ipc/process_memory.h"

#include <stdio.h>

bool pb_process_memory(int64_t pid, struct pb_process_memory *ret)
{
	long long kib, pss = -1, priv = 0;
	char path[64], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%lld/smaps_rollup", (long long)pid);
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
		return false;
	*ret = (struct pb_process_memory){pss, priv};
	return true;
}
