/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a process as the kernel counts it. */
#ifndef PT2BOX_IPC_PROCESS_MEMORY_H
#define PT2BOX_IPC_PROCESS_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* Shared pages in proportion, and private ones. */
struct pb_process_memory {
	int64_t pss_bytes, private_bytes;
};

/* false: there is no such process, or this one may not look into it. */
bool pb_process_memory(int64_t pid, struct pb_process_memory *ret);

#endif
