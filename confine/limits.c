/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits. RLIMIT_DATA, not RLIMIT_AS: shared read-only constants must not count. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "confine/layers.h"
#include "confine/test_layers.h"
#include "confine/steps.h"

#define LAYER "resource limits"
#define STACK_BYTES (8u << 20)

static bool limit(int what, uint64_t value)
{
	struct rlimit now, r;

	if (getrlimit(what, &now) != 0)
		return false;
	/* Never above what this process was given. */
	r.rlim_cur = r.rlim_max = value < now.rlim_max ? value : now.rlim_max;
	return setrlimit(what, &r) == 0;
}

pb_status pb_step_limits(const struct pb_limits *l, struct pt2box_error *err)
{
	const struct {
		int what;
		uint64_t value;
		const char *name;
	} row[] = {
		{RLIMIT_CORE, 0, "core"},
		{RLIMIT_FSIZE, l->file_bytes, "fsize"},
		{RLIMIT_NOFILE, l->files, "nofile"},
		{RLIMIT_MEMLOCK, 0, "memlock"},
		{RLIMIT_MSGQUEUE, 0, "msgqueue"},
		{RLIMIT_NICE, 0, "nice"},
		{RLIMIT_RTPRIO, 0, "rtprio"},
		{RLIMIT_STACK, STACK_BYTES, "stack"},
		{RLIMIT_DATA, l->data_bytes ? l->data_bytes : RLIM_INFINITY, "data"},
		{RLIMIT_NPROC, l->tasks, "nproc"},
	};
	char data[24];

	if (pb_test_layer_off("limits"))
		return PT2BOX_OK;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
		if (!limit(row[i].what, row[i].value))
			return pb_layer_failed(err, LAYER, row[i].name);
	snprintf(data, sizeof(data), "%llu MiB", (unsigned long long)(l->data_bytes >> 20));
	pb_layer_on(LAYER, "memory %s, %u files, %u tasks, no core file", l->data_bytes ? data : "unlimited", l->files,
		    l->tasks);
	return PT2BOX_OK;
}
