/* SPDX-License-Identifier: Apache-2.0 */
/* See torch_place.h. */
#include "ipc/torch_place.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBRARY "libtorch_cpu.so"

/* Where an interpreter under a prefix looks for packages: pip's folders, then Debian's. */
static const char *const below_prefix[] = {
	"lib/python3*/site-packages/torch/lib", "lib64/python3*/site-packages/torch/lib",
	"lib/python3*/dist-packages/torch/lib", "local/lib/python3*/dist-packages/torch/lib",
};

static bool is_roots(const char *path, char text[400], int links);

/* Where the link @part leads. */
static bool target_is_roots(const char *part, char text[400], int links)
{
	char target[PATH_MAX], whole[2 * PATH_MAX];
	ssize_t n = readlink(part, target, sizeof(target) - 1);

	if (n <= 0 || links <= 0)
		return false;
	target[n] = '\0';
	if (target[0] == '/')
		return is_roots(target, text, links - 1);
	snprintf(whole, sizeof(whole), "%.*s/%s", (int)(strrchr(part, '/') - part), part, target);
	return is_roots(whole, text, links - 1);
}

/* Each folder on the way, and on the way of each link: whoever may change one of them chooses what is found in the end. */
static bool is_roots(const char *path, char text[400], int links)
{
	char part[2 * PATH_MAX];
	struct stat sb, link;

	for (size_t n = strlen(path); n > 0; n--) {
		if (path[n] != '\0' && path[n] != '/')
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)n, path);
		/* In a folder like /tmp, others cannot replace what is not theirs. */
		if (stat(part, &sb) == 0 && lstat(part, &link) == 0 && sb.st_uid == 0 && link.st_uid == 0 &&
		    (!(sb.st_mode & (S_IWGRP | S_IWOTH)) || (S_ISDIR(sb.st_mode) && sb.st_mode & S_ISVTX)) &&
		    (!S_ISLNK(link.st_mode) || target_is_roots(part, text, links)))
			continue;
		snprintf(text, 400, "%.200s is not used: root would run what others than root may change (%.120s)", path, part);
		return false;
	}
	return true;
}

bool pb_place_is_roots(const char *path, char text[400])
{
	return is_roots(path, text, 40);
}

/* The text between quotes after __version__ in the package's version.py. */
static void read_version(struct pb_torch_place *p)
{
	char path[PATH_MAX + 32], line[200];
	FILE *f;

	snprintf(path, sizeof(path), "%.*s/../version.py", (int)(strlen(p->path) - strlen("/" LIBRARY)), p->path);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "__version__ = '%31[^']'", p->version) == 1)
			break;
	if (f)
		fclose(f);
}

static bool try_folder(struct pb_torch_place *p, const char *folder, const char *how)
{
	char name[PATH_MAX], real[PATH_MAX];
	struct stat sb;

	if (snprintf(name, sizeof(name), "%s/" LIBRARY, folder) >= (int)sizeof(name) || !realpath(name, real) ||
	    stat(real, &sb) != 0 || !S_ISREG(sb.st_mode))
		return false;
	if (geteuid() == 0 && !pb_place_is_roots(real, p->text))
		return false;
	strcpy(p->path, real);
	read_version(p);
	snprintf(p->text, sizeof(p->text), "found by %s", how);
	return true;
}

static bool try_prefix(struct pb_torch_place *p, const char *prefix, const char *how)
{
	bool found = false;

	for (size_t i = 0; i < sizeof(below_prefix) / sizeof(below_prefix[0]) && !found; i++) {
		char pattern[PATH_MAX];
		glob_t g;

		if (snprintf(pattern, sizeof(pattern), "%s/%s", prefix, below_prefix[i]) >= (int)sizeof(pattern) ||
		    glob(pattern, GLOB_NOSORT, NULL, &g) != 0)
			continue;
		for (size_t k = 0; k < g.gl_pathc && !found; k++)
			found = try_folder(p, g.gl_pathv[k], how);
		globfree(&g);
	}
	return found;
}

static bool has_python(const char *bin)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/python3", bin);
	if (access(path, X_OK) == 0)
		return true;
	snprintf(path, sizeof(path), "%s/python", bin);
	return access(path, X_OK) == 0;
}

static bool try_search_path(struct pb_torch_place *p, const char *search)
{
	while (search && *search) {
		size_t n = strcspn(search, ":");
		char bin[PATH_MAX], *slash;

		if (*search == '/' && n < sizeof(bin)) {
			memcpy(bin, search, n);
			bin[n] = '\0';
			while (n > 1 && bin[n - 1] == '/')
				bin[--n] = '\0';
			slash = strrchr(bin, '/');
			if (has_python(bin)) {
				*slash = '\0';
				if (try_prefix(p, bin, "the Python on the PATH"))
					return true;
			}
		}
		search += strcspn(search, ":");
		search += *search == ':';
	}
	return false;
}

static bool try_named(struct pb_torch_place *p, const char *named)
{
	char lib[PATH_MAX];

	if (try_folder(p, named, "PT2BOX_TORCH"))
		return true;
	snprintf(lib, sizeof(lib), "%s/lib", named);
	if (try_folder(p, lib, "PT2BOX_TORCH"))
		return true;
	if (!p->text[0])
		snprintf(p->text, sizeof(p->text), "there is no " LIBRARY " in %.300s (PT2BOX_TORCH)", named);
	return false;
}

bool pb_torch_find(struct pb_torch_place *ret)
{
	const char *named = secure_getenv("PT2BOX_TORCH"), *venv = secure_getenv("VIRTUAL_ENV");
	const char *home = secure_getenv("HOME");
	char local[PATH_MAX];

	ret->path[0] = ret->version[0] = ret->text[0] = '\0';
	if (named && *named)
		return try_named(ret, named);
	if (venv && *venv == '/' && try_prefix(ret, venv, "VIRTUAL_ENV"))
		return true;
	if (try_search_path(ret, secure_getenv("PATH")))
		return true;
	if (home && *home == '/' && snprintf(local, sizeof(local), "%s/.local", home) < (int)sizeof(local) &&
	    try_prefix(ret, local, "the user's Python packages"))
		return true;
	if (!ret->text[0])
		snprintf(ret->text, sizeof(ret->text),
			 "PyTorch is neither in PT2BOX_TORCH nor with a Python on the PATH");
	return false;
}
