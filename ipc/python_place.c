/* SPDX-License-Identifier: Apache-2.0 */
/* See python_place.h. */
#include "ipc/python_place.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/torch_place.h"

/* Not a script that looks for one, as version managers put on the PATH. */
static bool is_program(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char head[4] = "";
	bool is = fd >= 0 && access(path, X_OK) == 0 && read(fd, head, 4) == 4 && memcmp(head, "\177ELF", 4) == 0;

	if (fd >= 0)
		close(fd);
	return is;
}

/* From the name that the links end at: "python3.11". */
static bool read_version(struct pb_python_place *p, const char *real)
{
	unsigned minor;

	p->version[0] = '\0';
	if (sscanf(strrchr(real, '/') + 1, "python3.%u", &minor) != 1)
		return true; /* its module will not be loaded if it is too old */
	snprintf(p->version, sizeof(p->version), "3.%u", minor);
	if (minor >= PB_PYTHON_MINOR)
		return true;
	snprintf(p->text, sizeof(p->text), "%.300s is too old: Python 3.%d is needed", real, PB_PYTHON_MINOR);
	return false;
}

/* The program, the name that leads to it, its standard library: what else it imports, its own host looks at. */
static bool may_be_used(struct pb_python_place *p, const char *name, const char *real)
{
	char library[PATH_MAX + 32], folder[PATH_MAX];
	struct stat sb;

	if (geteuid() != 0)
		return true;
	if (!pb_place_is_roots(name, p->text) || !pb_place_is_roots(real, p->text))
		return false;
	snprintf(library, sizeof(library), "%.*s/../lib/python%s", (int)(strrchr(real, '/') - real), real,
		 p->version[0] ? p->version : "3");
	return stat(library, &sb) != 0 || !realpath(library, folder) || pb_place_is_roots(folder, p->text);
}

static bool try_program(struct pb_python_place *p, const char *name, const char *how)
{
	char real[PATH_MAX];

	if (name[0] != '/' || strlen(name) >= sizeof(p->path) || !realpath(name, real) || !is_program(real))
		return false;
	if (!read_version(p, real) || !may_be_used(p, name, real))
		return false;
	strcpy(p->path, name);
	snprintf(p->text, sizeof(p->text), "found by %s", how);
	return true;
}

static bool try_folder(struct pb_python_place *p, const char *folder, size_t n, const char *below, const char *how)
{
	static const char *const names[] = {"python3", "python"};
	char name[PATH_MAX];

	for (size_t i = 0; i < 2; i++)
		if (snprintf(name, sizeof(name), "%.*s%s/%s", (int)n, folder, below, names[i]) < (int)sizeof(name) &&
		    try_program(p, name, how))
			return true;
	return false;
}

bool pb_python_find(struct pb_python_place *ret)
{
	const char *named = secure_getenv("PT2BOX_PYTHON"), *venv = secure_getenv("VIRTUAL_ENV");
	const char *search = secure_getenv("PATH");

	ret->path[0] = ret->version[0] = ret->text[0] = '\0';
	if (named && *named) {
		if (try_program(ret, named, "PT2BOX_PYTHON"))
			return true;
		if (!ret->text[0])
			snprintf(ret->text, sizeof(ret->text), "%.300s (PT2BOX_PYTHON) is no interpreter", named);
		return false;
	}
	if (venv && try_folder(ret, venv, strlen(venv), "/bin", "VIRTUAL_ENV"))
		return true;
	for (; search && *search; search += *search == ':') {
		size_t n = strcspn(search, ":");

		if (try_folder(ret, search, n, "", "the PATH"))
			return true;
		search += n;
	}
	if (!ret->text[0])
		snprintf(ret->text, sizeof(ret->text), "there is no Python in PT2BOX_PYTHON or on the PATH");
	return false;
}
