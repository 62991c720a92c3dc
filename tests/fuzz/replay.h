/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A main for fuzz targets that replays files, so that `make check` runs every corpus with any compiler.
 *
 *	fuzz_NAME FILE|FOLDER...	feeds each file, and each file of each folder, to the target once
 *
 * A target is one source with LLVMFuzzerTestOneInput() that includes this header. Built for libFuzzer (fuzz=1), the
 * header adds nothing: libFuzzer brings its own main. With no file at all a replay fails: an empty corpus tests nothing.
 * The empty input and every input cut in half are replayed too.
 */
#ifndef TESTS_FUZZ_REPLAY_H
#define TESTS_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifndef PB_LIBFUZZER

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* An exact allocation, so that a sanitizer sees one byte too far. */
static void replay_bytes(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);

	if (!exact)
		abort();
	if (size)
		memcpy(exact, data, size);
	(void)LLVMFuzzerTestOneInput(exact, size);
	free(exact);
}

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = NULL;
	size_t size = 0, cap = 0, n;

	if (!f) {
		perror(path);
		return -1;
	}
	do {
		if (size == cap) {
			cap = cap ? cap * 2 : 4096;
			data = realloc(data, cap);
			if (!data)
				abort();
		}
		n = fread(data + size, 1, cap - size, f);
		size += n;
	} while (n);
	fclose(f);
	replay_bytes(data, size);
	replay_bytes(data, size / 2);
	free(data);
	return 1;
}

/* Files replayed, -1 on a fault. */
static int replay_path(const char *path)
{
	struct dirent *e;
	struct stat st;
	int total = 0;
	DIR *dir;

	if (stat(path, &st) || !S_ISDIR(st.st_mode))
		return replay_file(path);
	dir = opendir(path);
	while (dir && total >= 0 && (e = readdir(dir))) {
		char sub[4096];
		int n;

		if (e->d_name[0] == '.')
			continue;
		snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
		n = replay_file(sub);
		total = n < 0 ? n : total + n;
	}
	if (dir)
		closedir(dir);
	return total;
}

int main(int argc, char **argv)
{
	int total = 0;

	replay_bytes(NULL, 0);
	for (int i = 1; i < argc; i++) {
		const int n = replay_path(argv[i]);

		if (n < 0)
			return 1;
		total += n;
	}
	printf("%d inputs replayed\n", total);
	return total == 0;
}

#endif
#endif
