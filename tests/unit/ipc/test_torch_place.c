/* SPDX-License-Identifier: Apache-2.0 */
/* Where PyTorch is looked for, and whose it must be. Files of the test's own, none of them is a library. */
#include "ipc/torch_place.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/check.h"

static char dir[64];
static struct pb_torch_place p;

static const char *in(const char *path)
{
	static char text[8][PATH_MAX];
	static int i;

	i = (i + 1) % 8;
	snprintf(text[i], PATH_MAX, "%s/%s", dir, path);
	return text[i];
}

/* A file in new folders. */
static void put(const char *path, const char *text, mode_t mode)
{
	char part[PATH_MAX];
	FILE *f;

	snprintf(part, sizeof(part), "%s", in(path));
	for (char *s = part + strlen(dir) + 1; (s = strchr(s, '/')); s++) {
		*s = '\0';
		mkdir(part, 0755);
		*s = '/';
	}
	f = fopen(part, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	chmod(part, mode);
}

static void put_torch(const char *prefix)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/torch/lib/libtorch_cpu.so", prefix);
	put(path, "", 0644);
	snprintf(path, sizeof(path), "%s/torch/version.py", prefix);
	put(path, "from typing import Optional\n__version__ = '2.13.0+cpu'\n", 0644);
}

static int remove_one(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
	(void)sb;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int begin(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/pt2box-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	chmod(dir, 0755);
	unsetenv("PT2BOX_TORCH");
	unsetenv("VIRTUAL_ENV");
	setenv("PATH", "", 1);
	setenv("HOME", in("home"), 1);
	return 0;
}

static int end(void **state)
{
	(void)state;
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void expect_at(const char *prefix, const char *how)
{
	char path[PATH_MAX];

	assert_true(pb_torch_find(&p));
	snprintf(path, sizeof(path), "%s/torch/lib/libtorch_cpu.so", in(prefix));
	assert_string_equal(path, p.path);
	assert_string_equal("2.13.0+cpu", p.version);
	assert_non_null(strstr(p.text, how));
}

static void test_nowhere(void **state)
{
	(void)state;
	assert_false(pb_torch_find(&p));
	assert_string_equal("", p.path);
	assert_non_null(strstr(p.text, "PATH"));
	setenv("PT2BOX_TORCH", in("none"), 1);
	assert_false(pb_torch_find(&p));
	assert_non_null(strstr(p.text, "PT2BOX_TORCH"));
}

/* What is named is taken, or nothing is. */
static void test_named(void **state)
{
	(void)state;
	put_torch("here");
	put_torch("venv/lib/python3.11/site-packages");
	setenv("VIRTUAL_ENV", in("venv"), 1);
	setenv("PT2BOX_TORCH", in("here/torch"), 1);
	expect_at("here", "PT2BOX_TORCH");
	setenv("PT2BOX_TORCH", in("here/torch/lib"), 1);
	expect_at("here", "PT2BOX_TORCH");
	setenv("PT2BOX_TORCH", in("here"), 1);
	assert_false(pb_torch_find(&p));
	setenv("PT2BOX_TORCH", "", 1); /* as if it were not set */
	expect_at("venv/lib/python3.11/site-packages", "VIRTUAL_ENV");
}

static void test_search(void **state)
{
	char path[1000];

	(void)state;
	put("empty/bin/python3", "", 0755);
	put("no/bin/sh", "", 0755);
	put_torch("no/lib/python3.11/site-packages"); /* no interpreter beside it */
	put("deb/bin/python3", "", 0755);
	put_torch("deb/lib/python3/dist-packages");
	put("later/bin/python", "", 0755);
	put_torch("later/lib/python3.12/site-packages");
	snprintf(path, sizeof(path), "relative/bin::%s:%s:%s/:%s", in("empty/bin"), in("no/bin"), in("deb/bin"),
		 in("later/bin"));
	setenv("PATH", path, 1);
	expect_at("deb/lib/python3/dist-packages", "PATH");
	setenv("PATH", in("later/bin"), 1);
	expect_at("later/lib/python3.12/site-packages", "PATH");
	setenv("PATH", "/", 1);
	put_torch("home/.local/lib/python3.9/site-packages");
	expect_at("home/.local/lib/python3.9/site-packages", "user");
}

/* A folder instead of a file, and a link that leads elsewhere. */
static void test_odd_files(void **state)
{
	(void)state;
	put("odd/torch/lib/libtorch_cpu.so/file", "", 0644);
	setenv("PT2BOX_TORCH", in("odd/torch"), 1);
	assert_false(pb_torch_find(&p));
	put_torch("real");
	put("links/torch/lib/other", "", 0644);
	assert_int_equal(0, symlink(in("real/torch/lib/libtorch_cpu.so"), in("links/torch/lib/libtorch_cpu.so")));
	setenv("PT2BOX_TORCH", in("links/torch"), 1);
	expect_at("real", "PT2BOX_TORCH");
}

/* Root's processes load it before they are confined. */
static void test_whose(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return;
	put_torch("mine");
	setenv("PT2BOX_TORCH", in("mine/torch"), 1);
	assert_true(pb_torch_find(&p));
	assert_int_equal(0, chmod(in("mine/torch"), 0777));
	assert_false(pb_torch_find(&p));
	assert_non_null(strstr(p.text, "others than root"));
	assert_int_equal(0, chmod(in("mine/torch"), 0755));
	assert_int_equal(0, chown(in("mine/torch/lib/libtorch_cpu.so"), 1000, 1000));
	assert_false(pb_torch_find(&p));
}

/* A link on the way that another user may turn elsewhere, to a file or to a folder. */
static void test_links(void **state)
{
	char text[400];

	(void)state;
	if (geteuid() != 0)
		return;
	put("real/bin/program", "", 0755);
	put("theirs/nothing", "", 0644);
	put("start/nothing", "", 0644);
	assert_int_equal(0, symlink("../real/bin/program", in("start/straight")));
	assert_int_equal(0, symlink(in("real/bin/program"), in("theirs/hop")));
	assert_int_equal(0, symlink(in("real"), in("theirs/folder")));
	assert_int_equal(0, symlink(in("theirs/hop"), in("start/through")));
	assert_int_equal(0, symlink(in("theirs/folder"), in("start/below")));
	assert_int_equal(0, symlink("loop", in("start/loop")));
	assert_true(pb_place_is_roots(in("start/straight"), text));
	assert_true(pb_place_is_roots(in("start/through"), text));
	assert_true(pb_place_is_roots(in("start/below/bin/program"), text));
	assert_int_equal(0, chown(in("theirs"), 1000, 1000));
	assert_true(pb_place_is_roots(in("start/straight"), text));
	assert_false(pb_place_is_roots(in("start/through"), text));
	assert_false(pb_place_is_roots(in("start/below/bin/program"), text));
	assert_false(pb_place_is_roots(in("start/loop"), text));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {TEST(test_nowhere), TEST(test_named), TEST(test_search), TEST(test_odd_files),
					   TEST(test_whose), TEST(test_links)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
