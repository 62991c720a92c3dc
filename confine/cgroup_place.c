/* SPDX-License-Identifier: Apache-2.0 */
/* Where in the file system the control group of this process is. */
#include "confine/cgroup_place.h"

#include <stdio.h>
#include <string.h>

#define PATH_MAX_BYTES PB_CGROUP_PATH_MAX

/* The path in "N:controllers:path" of /proc/self/cgroup whose controllers hold @name ("" for version 2). */
static bool own_path(const char *name, char *ret, size_t cap)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX_BYTES];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		for (char *save = NULL, *c = strtok_r(list + 1, ",", &save); c && !found; c = strtok_r(NULL, ",", &save))
			found = *name && strcmp(c, name) == 0;
		found |= !*name && list[1] == '\0';
		if (found)
			snprintf(ret, cap, "%s", path);
	}
	if (f)
		fclose(f);
	return found;
}

/* Mount point of the hierarchy, and the group that is its root there. */
static bool hierarchy(const char *type, const char *name, char *ret_mount, char *ret_root)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[2 * PATH_MAX_BYTES], fs[64], options[512];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		const char *rest = strstr(line, " - ");

		if (!rest || sscanf(rest, " - %63s %*s %511s", fs, options) != 2 || strcmp(fs, type) != 0 ||
		    sscanf(line, "%*s %*s %*s %2047s %2047s", ret_root, ret_mount) != 2)
			continue;
		found = !*name;
		for (char *save = NULL, *o = strtok_r(options, ",", &save); o && !found; o = strtok_r(NULL, ",", &save))
			found = strcmp(o, name) == 0;
	}
	if (f)
		fclose(f);
	return found;
}

bool pb_cgroup_own_dir(const char *name, char *ret, size_t cap)
{
	char mount[PATH_MAX_BYTES], root[PATH_MAX_BYTES], path[PATH_MAX_BYTES];
	const char *below = path;
	size_t n;

	if (!hierarchy(*name ? "cgroup" : "cgroup2", name, mount, root) || !own_path(name, path, sizeof(path)))
		return false;
	/* In a container the mount shows a part of the hierarchy only. */
	n = strlen(root);
	if (n > 1 && strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == '\0'))
		below += n;
	return (size_t)snprintf(ret, cap, "%s%s", mount, strcmp(below, "/") == 0 ? "" : below) < cap;
}
