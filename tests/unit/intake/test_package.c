/* SPDX-License-Identifier: Apache-2.0 */
/* Archives: real shapes are read, hostile ones refused by name, damaged ones never crash. Attack cases P01 to P03. */
#include "tests/unit/intake/kit.h"

#include "broker/intake/package.h"

#define MAX (64u << 20)

/* ---- names ---- */

static void test_names(void **state)
{
	static const char *const good[] = {"a", "a/b", "mlp/data/aotinductor/model/x.wrapper.so", "a b/c", "a/", "a/b/",
					   ".data/version", "..a/b", "a../b", "...", "\xc3\xa9t\xc3\xa9/x",
					   "\xe6\xa8\xa1\xe5\x9e\x8b", "\xf0\x9f\x98\x80"};
	static const char *const bad[] = {"", "/", "/etc/passwd", "../x", "a/../b", "a/..", "..", ".", "a/./b", "a//b", "a\\b",
					  "a\nb", "a\x1b[2Jb", "a\x7f", "\xff", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
					  "\xf4\x90\x80\x80", "\xc2\x85", "a\xc3", "//"};
	char *longest = malloc(PB_ZIP_NAME_MAX + 1);

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!pb_zip_name_ok(good[i], strlen(good[i])))
			fail_msg("refused: %s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (pb_zip_name_ok(bad[i], strlen(bad[i])))
			fail_msg("accepted: bad[%zu]", i);
	assert_false(pb_zip_name_ok("a\0b", 3));
	memset(longest, 'a', PB_ZIP_NAME_MAX + 1);
	assert_true(pb_zip_name_ok(longest, PB_ZIP_NAME_MAX));
	assert_false(pb_zip_name_ok(longest, PB_ZIP_NAME_MAX + 1));
	free(longest);
}

/* ---- hostile archives ---- */

static pb_status open_bytes(const uint8_t *p, size_t n, uint64_t max, struct pt2box_error *err)
{
	const int fd = kit_memfd(p, n);
	struct pb_package pkg;
	pb_status st = pb_package_open(&pkg, fd, max, err);

	/* Whatever opens can be read to its end or says why not. */
	for (uint32_t i = 0; !st && i < pkg.n_entries; i++) {
		char *text;

		if (pkg.entries[i].size <= 1u << 20 && pb_package_read(&pkg, &pkg.entries[i], 1u << 20, &text, err) == 0)
			free(text);
	}
	pb_package_deinit(&pkg);
	close(fd);
	return st;
}

static void expect_error(const struct kit_entry *e, uint32_t n, struct kit_zip *options, const char *word)
{
	struct kit_zip *z = options ? options : calloc(1, sizeof(*z));
	struct pt2box_error err = {.status = PT2BOX_OK};

	kit_zip(z, e, n);
	if (open_bytes(z->p, z->n, MAX, &err) != PT2BOX_PKG_REJECTED || strncmp(err.text, word, strlen(word)) != 0)
		fail_msg("want %s, got \"%s\"", word, err.text);
	free(z->p);
	z->p = NULL;
	z->n = z->cap = 0;
	if (!options)
		free(z);
}

static void expect_one(struct kit_entry second, const char *word)
{
	const struct kit_entry e[] = {kit_text("a/first", "one"), second};

	expect_error(e, 2, NULL, word);
}

static void test_hostile_names(void **state)
{
	static char huge[65536];

	(void)state;
	memset(huge, 'x', 65535);
	expect_one(kit_text("a/../../x", "x"), "zip.name");
	expect_one(kit_text("/etc/passwd", "x"), "zip.name");
	expect_one(kit_text("a\\b", "x"), "zip.name");
	expect_one(kit_text("a/./b", "x"), "zip.name");
	expect_one(kit_text(huge, "x"), "zip.name");
	expect_one((struct kit_entry){.name = "a\0b", .name_len = 3, .data = "x", .size = 1}, "zip.name");
	expect_one((struct kit_entry){.name = "link", .data = "/etc", .size = 4, .mode = 0120777}, "zip.name");
	expect_one((struct kit_entry){.name = "device", .data = "", .mode = 0020666}, "zip.name");
}

static void test_hostile_entries(void **state)
{
	static uint8_t zeros[1 << 20];
	struct kit_entry dup[] = {kit_text("a/x", "1"), kit_text("a/x", "2")};

	(void)state;
	expect_one((struct kit_entry){.name = "e", .data = "x", .size = 1, .flags = 1}, "zip.encrypted");
	expect_one((struct kit_entry){.name = "e", .data = "x", .size = 1, .method = 12}, "zip.method");
	expect_one((struct kit_entry){.name = "e", .data = "x", .size = 1, .method = 99}, "zip.method");
	expect_one((struct kit_entry){.name = "bomb", .data = zeros, .size = sizeof(zeros), .deflate = true}, "zip.ratio");
	expect_one((struct kit_entry){.name = "lie", .data = "x", .size = 1, .size_add = 7}, "zip.");
	expect_one((struct kit_entry){.name = "a/x", .local_name = "a/y", .data = "x", .size = 1}, "zip.consistency");
	expect_one((struct kit_entry){.name = "a/x", .data = "one", .size = 3, .at_first = true}, "zip.consistency");
	expect_error(dup, 2, NULL, "zip.consistency");
}

static void test_hostile_ends(void **state)
{
	const struct kit_entry e[] = {kit_text("a/x", "1"), kit_text("a/y", "2")};
	struct kit_zip *z = calloc(1, sizeof(*z));

	(void)state;
	z->comment = "hello";
	expect_error(e, 2, z, "zip.end");
	z->comment = NULL;
	z->count_add = 1;
	expect_error(e, 2, z, "zip.directory");
	z->count_add = 5000;
	expect_error(e, 2, z, "zip.entries");
	z->count_add = 0;
	z->directory_add = 1;
	expect_error(e, 2, z, "zip.directory");
	z->directory_add = 0xfffff000;
	expect_error(e, 2, z, "zip.directory");
	z->directory_add = 0;
	z->torch = true;
	z->count_add = 1;
	expect_error(e, 2, z, "zip.zip64");
	free(z);
}

static void test_many_entries(void **state)
{
	struct kit_entry *e = calloc(5000, sizeof(*e));
	char (*names)[16] = calloc(5000, sizeof(*names));
	struct kit_zip *z = calloc(1, sizeof(*z));
	struct pt2box_error err;

	(void)state;
	for (int i = 0; i < 5000; i++) {
		snprintf(names[i], sizeof(names[i]), "a/%d", i);
		e[i] = kit_text(names[i], "");
	}
	expect_error(e, 5000, NULL, "zip.entries");
	kit_zip(z, e, PB_ZIP_ENTRIES_MAX);
	assert_int_equal(PT2BOX_OK, open_bytes(z->p, z->n, MAX, &err));
	free(z->p);
	free(z);
	free(names);
	free(e);
}

static void test_limits(void **state)
{
	const struct kit_entry e[] = {kit_text("a/x", "0123456789"), kit_text("a/y", "0123456789")};
	struct kit_zip *z = calloc(1, sizeof(*z));
	struct pt2box_error err;

	(void)state;
	kit_zip(z, e, 2);
	assert_int_equal(PT2BOX_OK, open_bytes(z->p, z->n, z->n, &err));
	assert_int_equal(PT2BOX_LIMIT, open_bytes(z->p, z->n, z->n - 1, &err));
	free(z->p);
	free(z);
}

/* Small deflated texts pass, whatever their ratio; large ones within the ratio too. */
static void test_deflate(void **state)
{
	static uint8_t mixed[1 << 18];
	uint64_t seed = 1;
	struct kit_entry e[] = {{.name = "a/zeros", .data = mixed, .size = 60000, .deflate = true},
				{.name = "a/mixed", .data = mixed, .size = sizeof(mixed), .deflate = true}};
	struct pb_package p;
	char *text;
	int fd;

	(void)state;
	for (size_t i = 60000; i < sizeof(mixed); i++)
		mixed[i] = (uint8_t)(check_rand(&seed) & 15);
	fd = kit_zip_fd(e, 2);
	assert_int_equal(PT2BOX_OK, pb_package_open(&p, fd, MAX, NULL));
	assert_int_equal(PT2BOX_OK, pb_package_read(&p, &p.entries[1], MAX, &text, NULL));
	assert_memory_equal(mixed, text, sizeof(mixed));
	free(text);
	assert_int_equal(PT2BOX_LIMIT, pb_package_read(&p, &p.entries[1], 100, &text, NULL));
	pb_package_deinit(&p);
	close(fd);
}

/* ---- contents ---- */

static void check_stream(bool deflate, bool torch)
{
	static uint8_t data[700001];
	struct kit_entry e[] = {kit_text("a/t", "text"),
				{.name = "a/big", .data = data, .size = sizeof(data), .deflate = deflate},
				{.name = "a/two", .data = data + 5, .size = 4096}};
	struct kit_zip *z = calloc(1, sizeof(*z));
	const int out = memfd_create("out", MFD_CLOEXEC), two = memfd_create("two", MFD_CLOEXEC);
	uint8_t *back = malloc(sizeof(data)), sha[32];
	struct pb_package p;
	uint64_t seed = 7;
	int fd;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)check_rand(&seed);
	z->torch = torch;
	kit_zip(z, e, 3);
	fd = kit_memfd(z->p, z->n);
	assert_int_equal(PT2BOX_OK, pb_package_open(&p, fd, MAX, NULL));
	assert_int_equal(3, p.n_entries);
	assert_int_equal(PT2BOX_OK,
			 pb_package_stream(&p, (struct pb_sink[]){{.entry = &p.entries[1], .fd = out},
								  {.entry = &p.entries[2], .fd = two}}, 2, sha, NULL));
	assert_int_equal(sizeof(data), pread(out, back, sizeof(data), 0));
	assert_memory_equal(data, back, sizeof(data));
	assert_int_equal(4096, pread(two, back, sizeof(data), 0));
	assert_memory_equal(data + 5, back, 4096);
	pb_package_deinit(&p);
	close(fd);
	/* One byte of it changed: the checksum finds it. */
	z->p[z->local[1] + 30 + 5 + 1000] ^= 1;
	fd = kit_memfd(z->p, z->n);
	assert_int_equal(PT2BOX_OK, pb_package_open(&p, fd, MAX, NULL));
	assert_int_equal(PT2BOX_PKG_REJECTED,
			 pb_package_stream(&p, &(struct pb_sink){.entry = &p.entries[1], .fd = out}, 1, sha, NULL));
	pb_package_deinit(&p);
	close(fd);
	close(out);
	close(two);
	free(back);
	free(z->p);
	free(z);
}

static void test_stream(void **state)
{
	(void)state;
	check_stream(false, false);
	check_stream(false, true);
	check_stream(true, false);
}

/* With and without outputs: what is hashed is the whole file. */
static void test_hash_is_of_the_file(void **state)
{
	const struct kit_entry e[] = {kit_text("a/x", "1")};
	const int fd = kit_zip_fd(e, 1), out = memfd_create("out", MFD_CLOEXEC);
	uint8_t one[32], two[32];
	struct pb_package p;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_package_open(&p, fd, MAX, NULL));
	assert_int_equal(PT2BOX_OK,
			 pb_package_stream(&p, &(struct pb_sink){.entry = &p.entries[0], .fd = out}, 1, one, NULL));
	assert_int_equal(PT2BOX_OK, pb_package_stream(&p, NULL, 0, two, NULL));
	assert_memory_equal(one, two, 32);
	pb_package_deinit(&p);
	close(fd);
	close(out);
}

/* The file shrinks after it was opened: an error, not a hang or a crash. */
static void test_shrinks(void **state)
{
	static uint8_t data[300000];
	const struct kit_entry e[] = {kit_text("a/t", "text"), {.name = "a/big", .data = data, .size = sizeof(data)}};
	const int fd = kit_zip_fd(e, 2), out = memfd_create("out", MFD_CLOEXEC);
	struct pt2box_error err;
	struct pb_package p;
	uint8_t sha[32];
	char *text;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_package_open(&p, fd, MAX, NULL));
	assert_int_equal(0, ftruncate(fd, 1000));
	assert_int_not_equal(PT2BOX_OK, pb_package_read(&p, &p.entries[1], MAX, &text, &err));
	assert_int_equal(PT2BOX_IO, pb_package_stream(&p, &(struct pb_sink){.entry = &p.entries[1], .fd = out}, 1, sha,
						      &err));
	pb_package_deinit(&p);
	close(fd);
	close(out);
}

/* ---- sweeps ---- */

static void sweep(bool torch)
{
	const struct kit_entry e[] = {kit_text("pkg/one", "first"),
				      {.name = "pkg/two", .data = "second second second", .size = 20, .deflate = true},
				      kit_text("pkg/three", "")};
	struct kit_zip *z = calloc(1, sizeof(*z));

	z->torch = torch;
	kit_zip(z, e, 3);
	assert_int_equal(PT2BOX_OK, open_bytes(z->p, z->n, MAX, NULL));
	for (size_t n = 0; n < z->n; n++)
		assert_int_not_equal(PT2BOX_OK, open_bytes(z->p, n, MAX, NULL));
	for (size_t i = 0; i < z->n; i++)
		for (int bit = 0; bit < 9; bit++) {
			const uint8_t mask = bit == 8 ? 0xff : (uint8_t)(1u << bit);

			z->p[i] ^= mask;
			(void)!open_bytes(z->p, z->n, MAX, NULL);
			z->p[i] ^= mask;
		}
	free(z->p);
	free(z);
}

static void test_sweep(void **state)
{
	(void)state;
	sweep(false);
	sweep(true);
}

/* ---- which files are the model's ---- */

static pb_status choose(const struct kit_entry *e, uint32_t n, const char *model, struct pb_model_files *f,
			struct pb_package *p, struct pt2box_error *err)
{
	const int fd = kit_zip_fd(e, n);
	pb_status st = pb_package_open(p, fd, MAX, err);

	assert_int_equal(PT2BOX_OK, st);
	st = pb_package_choose(p, model, f, err);
	close(fd); /* nothing is read any more */
	return st;
}

static void test_choose(void **state)
{
	const struct kit_entry e[] = {kit_text("x.y/data/aotinductor/model/H.wrapper.cpp", "c"),
				      kit_text("x.y/data/aotinductor/model/K.kernel.cpp", "k"),
				      kit_text("x.y/data/aotinductor/model/triton.so", "t"),
				      kit_text("x.y/data/aotinductor/model/H.wrapper.so", "s"),
				      kit_text("x.y/data/aotinductor/model/K.kernel_metadata.json", "m"),
				      kit_text("x.y/data/aotinductor/model/H.wrapper_metadata.json", "m"),
				      kit_text("x.y/data/aotinductor/model/H.wrapper.json", "n"),
				      kit_text("x.y/data/aotinductor/model/H.wrapper_weights.blob", "b"),
				      kit_text("x.y/data/aotinductor/model2/G.wrapper.so", "s"),
				      kit_text("x.y/archive_format", "pt2")};
	struct pb_model_files f;
	struct pt2box_error err;
	struct pb_package p;

	(void)state;
	assert_int_equal(PT2BOX_OK, choose(e, 10, "model", &f, &p, &err));
	assert_int_equal(2, p.n_models);
	assert_string_equal(e[3].name, f.so->name);
	assert_string_equal(e[0].name, f.wrapper->name);
	assert_string_equal(e[1].name, f.kernel->name);
	assert_string_equal(e[5].name, f.metadata->name);
	assert_string_equal(e[6].name, f.nodes->name);
	assert_string_equal(e[7].name, f.blob->name);
	pb_package_deinit(&p);
	assert_int_equal(PT2BOX_OK, choose(e, 10, "model2", &f, &p, &err));
	assert_string_equal(e[8].name, f.so->name);
	assert_null(f.wrapper);
	pb_package_deinit(&p);
	assert_int_equal(PT2BOX_NOT_FOUND, choose(e, 10, "mode", &f, &p, &err));
	assert_non_null(strstr(err.text, "model, model2"));
	pb_package_deinit(&p);
	assert_int_equal(PT2BOX_NOT_FOUND, choose(e, 10, "", &f, &p, &err));
	pb_package_deinit(&p);
}

/* Before 2.7 files had no ".wrapper"; archives packed anew may have no root, or folders as entries. */
static void test_choose_shapes(void **state)
{
	const struct kit_entry old[] = {kit_text("archive/data/aotinductor/model/H.cpp", "c"),
					kit_text("archive/data/aotinductor/model/H.so", "s"),
					kit_text("archive/data/aotinductor/model/H_metadata.json", "m")};
	const struct kit_entry bare[] = {kit_text("data/aotinductor/model/H.wrapper.so", "s"),
					 kit_text("data/aotinductor/model/H.wrapper.cpp", "c")};
	const struct kit_entry folders[] = {kit_text("m/", ""), kit_text("m/data/", ""), kit_text("m/data/aotinductor/", ""),
					    kit_text("m/data/aotinductor/model/", ""),
					    kit_text("m/data/aotinductor/model/H.wrapper.so", "s")};
	struct pb_model_files f;
	struct pt2box_error err;
	struct pb_package p;

	(void)state;
	assert_int_equal(PT2BOX_OK, choose(old, 3, "model", &f, &p, &err));
	assert_string_equal(old[0].name, f.wrapper->name);
	assert_string_equal(old[2].name, f.metadata->name);
	pb_package_deinit(&p);
	assert_int_equal(PT2BOX_OK, choose(bare, 2, "model", &f, &p, &err));
	assert_string_equal(bare[0].name, f.so->name);
	pb_package_deinit(&p);
	assert_int_equal(PT2BOX_OK, choose(folders, 5, "model", &f, &p, &err));
	assert_string_equal(folders[4].name, f.so->name);
	pb_package_deinit(&p);
}

/* P04: text and compiler flags are never built. */
static void test_no_so(void **state)
{
	const struct kit_entry cpp[] = {kit_text(KIT_FOLDER "H.wrapper.cpp", "int main(){}"),
					kit_text(KIT_FOLDER "H.wrapper_compile_flags.json",
						 "{\"compiler\": \"touch /tmp/owned; g++\"}")};
	const struct kit_entry other[] = {kit_text("pkg/models/model.json", "{}"), kit_text("pkg/archive_format", "pt2")};
	const struct kit_entry nested[] = {kit_text(KIT_FOLDER "sub/H.wrapper.so", "s"), kit_text("pkg/x", "")};
	const struct kit_entry two[] = {kit_text(KIT_FOLDER "A.wrapper.so", "s"), kit_text(KIT_FOLDER "B.wrapper.so", "s")};
	struct pb_model_files f;
	struct pt2box_error err;
	struct pb_package p;

	(void)state;
	assert_int_equal(PT2BOX_PKG_REJECTED, choose(cpp, 2, "model", &f, &p, &err));
	assert_memory_equal("no_so: ", err.text, 7);
	pb_package_deinit(&p);
	assert_int_equal(PT2BOX_PKG_REJECTED, choose(other, 2, "model", &f, &p, &err));
	assert_memory_equal("no_so: ", err.text, 7);
	pb_package_deinit(&p);
	assert_int_equal(PT2BOX_PKG_REJECTED, choose(nested, 2, "model", &f, &p, &err));
	assert_memory_equal("no_so: ", err.text, 7);
	pb_package_deinit(&p);
	assert_int_equal(PT2BOX_PKG_REJECTED, choose(two, 0, "model", &f, &p, &err)); /* an empty archive */
	assert_memory_equal("no_so: ", err.text, 7);
	pb_package_deinit(&p);
	assert_int_equal(PT2BOX_PKG_REJECTED, choose(two, 2, "model", &f, &p, &err));
	assert_memory_equal("meta.so: ", err.text, 9);
	pb_package_deinit(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_names),	       CHECK_TEST(test_hostile_names), CHECK_TEST(test_hostile_entries),
		CHECK_TEST(test_hostile_ends), CHECK_TEST(test_many_entries),  CHECK_TEST(test_limits),
		CHECK_TEST(test_deflate),      CHECK_TEST(test_stream),	       CHECK_TEST(test_hash_is_of_the_file),
		CHECK_TEST(test_shrinks),      CHECK_TEST(test_sweep),	       CHECK_TEST(test_choose),
		CHECK_TEST(test_choose_shapes), CHECK_TEST(test_no_so),
	};

	return cmocka_run_group_tests_name("package", tests, NULL, NULL);
}
