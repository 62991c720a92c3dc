/* SPDX-License-Identifier: Apache-2.0 */
/* See check.h. */
#include "tests/lib/check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int check_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	if (!dir)
		return -1;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 3; /* ".", ".." and the folder itself */
}

int check_fds_setup(void **state)
{
	*state = (void *)(intptr_t)check_count_fds();
	return 0;
}

int check_fds_teardown(void **state)
{
	const int before = (int)(intptr_t)*state, now = check_count_fds();

	if (before == now)
		return 0;
	fprintf(stderr, "%d descriptors before the test, %d after it\n", before, now);
	return -1;
}

long check_status_kib(const char *line)
{
	FILE *f = fopen("/proc/self/status", "re");
	const size_t n = strlen(line);
	char text[256];
	long kib = -1;

	while (f && fgets(text, sizeof(text), f))
		if (!strncmp(text, line, n) && text[n] == ':')
			kib = strtol(text + n + 1, NULL, 10);
	if (f)
		fclose(f);
	return kib;
}
