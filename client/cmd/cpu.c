/* SPDX-License-Identifier: Apache-2.0 */
/* See cpu.h. */
#include "client/cmd/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The same name as compilers and kernels write it: sse4.2, sse4_2; avx512_bf16, avx512bf16. */
static bool same_feature(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t i = 0, k = 0;

	for (;;) {
		while (i < a_len && strchr("._-", a[i]))
			i++;
		while (k < b_len && strchr("._-", b[k]))
			k++;
		if (i == a_len || k == b_len)
			return i == a_len && k == b_len;
		if (a[i++] != b[k++])
			return false;
	}
}

/* Where the kernel's name is another one than the compiler's. */
static const char *kernel_name(const char *feature)
{
	static const char *const names[][2] = {{"sse3", "pni"}, {"lzcnt", "abm"}, {"bmi", "bmi1"}, {"pclmul", "pclmulqdq"}};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(feature, names[i][0]) == 0)
			return names[i][1];
	return feature;
}

bool cmd_cpu_has(const char *flags, const char *feature)
{
	const char *text = flags, *word = kernel_name(feature);

	while (text && *text) {
		size_t n = strcspn(text, " \t\n:");

		if (n && same_feature(text, n, word, strlen(word)))
			return true;
		text += n + (text[n] != '\0');
	}
	return false;
}

char *cmd_cpu_flags(void)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char *line = NULL;
	size_t cap = 0;

	while (f && getline(&line, &cap, f) > 0)
		if (strncmp(line, "flags", 5) == 0) {
			fclose(f);
			return line;
		}
	if (f)
		fclose(f);
	free(line);
	return NULL;
}
