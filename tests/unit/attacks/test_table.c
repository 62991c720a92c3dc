/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of attacks is whole: M01 to M44, P01 to P07, C01 to C13, S01 to S04 and G01 to G06, each once; each but those of
 * devices is shown by a model that is there, or by a test that is there and is run.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/check.h"

struct row {
	const char *id, *a, *b;
};

static const struct row attacks[] = {
#define ATTACK(id, act, ...) {id, act, NULL},
#define MODEL(...)
#define SHOWN(...)
#define WAITS(...)
#include "tests/attacks.def"
};
static const struct row models[] = {
#define ATTACK(...)
#define MODEL(id, fixture, ...) {id, fixture, NULL},
#define SHOWN(...)
#define WAITS(...)
#include "tests/attacks.def"
};
static const struct row shown[] = {
#define ATTACK(...)
#define MODEL(...)
#define SHOWN(id, file, test) {id, file, test},
#define WAITS(...)
#include "tests/attacks.def"
};
static const struct row waits[] = {
#define ATTACK(...)
#define MODEL(...)
#define SHOWN(...)
#define WAITS(id, why) {id, why, NULL},
#include "tests/attacks.def"
};
#define N(t) (sizeof(t) / sizeof((t)[0]))

static size_t count(const struct row *t, size_t n, const char *id)
{
	size_t found = 0;

	for (size_t i = 0; i < n; i++)
		found += strcmp(t[i].id, id) == 0;
	return found;
}

static void test_every_id_once(void **state)
{
	static const struct {
		char letter;
		int n;
	} kind[] = {{'M', 44}, {'P', 7}, {'C', 13}, {'S', 4}, {'G', 6}};
	size_t total = 0;
	char id[16];

	(void)state;
	for (size_t k = 0; k < N(kind); k++)
		for (int i = 1; i <= kind[k].n; i++) {
			snprintf(id, sizeof(id), "%c%02d", kind[k].letter, i);
			if (count(attacks, N(attacks), id) != 1)
				fail_msg("%s is there %zu times", id, count(attacks, N(attacks), id));
			total++;
		}
	assert_int_equal(N(attacks), total);
	assert_int_equal(74, total);
}

static void test_every_row_is_shown(void **state)
{
	(void)state;
	for (size_t i = 0; i < N(attacks); i++) {
		const char *id = attacks[i].id;
		size_t n = count(models, N(models), id) + count(shown, N(shown), id);

		if (id[0] == 'G' ? count(waits, N(waits), id) != 1 : n == 0 || count(waits, N(waits), id))
			fail_msg("%s is not shown by any test", id);
	}
	for (size_t i = 0; i < N(shown); i++)
		if (!count(attacks, N(attacks), shown[i].id))
			fail_msg("%s is not on the list", shown[i].id);
}

static char *read_file(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = calloc(1, 1 << 20);

	if (f && text) {
		(void)!fread(text, 1, (1 << 20) - 1, f);
		fclose(f);
	}
	return text;
}

/* The function is defined, and named in a list of tests. */
static void test_every_test_is_there(void **state)
{
	(void)state;
	for (size_t i = 0; i < N(shown); i++) {
		char *text = read_file(shown[i].a), define[200], list[200];

		snprintf(define, sizeof(define), "static void %s(void **state)", shown[i].b);
		snprintf(list, sizeof(list), "(%s)", shown[i].b);
		if (!strstr(text, define) || !strstr(text, list))
			fail_msg("%s: %s has no test %s", shown[i].id, shown[i].a, shown[i].b);
		free(text);
	}
	for (size_t i = 0; i < N(models); i++) {
		char path[200];
		char *text;

		snprintf(path, sizeof(path), "tests/hostile/%s.c", models[i].a);
		text = read_file(path);
		if (!text[0])
			fail_msg("%s: there is no %s", models[i].id, path);
		free(text);
	}
}

/* Some test program names it. */
static bool is_named(const char *name)
{
	DIR *d = opendir("tests/integration");
	char quoted[300];
	struct dirent *e;
	bool found = false;

	snprintf(quoted, sizeof(quoted), "\"%s\"", name);
	while (d && !found && (e = readdir(d)) != NULL) {
		char path[400];
		char *text;

		snprintf(path, sizeof(path), "tests/integration/%s", e->d_name);
		text = read_file(path);
		found = strstr(text, quoted) != NULL;
		free(text);
	}
	if (d)
		closedir(d);
	return found;
}

/* No fixture that nobody uses. */
static void test_every_model_is_used(void **state)
{
	DIR *d = opendir("tests/hostile");
	struct dirent *e;

	(void)state;
	assert_non_null(d);
	while ((e = readdir(d)) != NULL) {
		size_t n = strlen(e->d_name);
		char name[256];
		bool used = false;

		if (n < 3 || strcmp(e->d_name + n - 2, ".c") != 0)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(n - 2), e->d_name);
		for (size_t i = 0; i < N(models); i++)
			used |= strcmp(models[i].a, name) == 0;
		if (!used && !is_named(name) && strcmp(name, "marker") != 0 /* built into a path */)
			fail_msg("tests/hostile/%s is used by no test", e->d_name);
	}
	closedir(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_every_id_once),
		CHECK_TEST(test_every_row_is_shown),
		CHECK_TEST(test_every_test_is_there),
		CHECK_TEST(test_every_model_is_used),
	};

	return cmocka_run_group_tests_name("attacks", tests, NULL, NULL);
}
