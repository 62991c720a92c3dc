/* SPDX-License-Identifier: Apache-2.0 */
/* .npz: archive order, stored and deflated, zip64; damage is refused. Archives by libzip, by numpy and by us. */
#include "tests/unit/cmd/files.h"

#include <zip.h>

#include "client/cmd/npy.h"

static const int64_t sizes[2] = {3, 2}, strides[2] = {2, 1};
static const float data[6] = {1, 2, 3, 4, 5, 6};

static const struct pb_array_view views[3] = {
	{"out0", PT2BOX_FLOAT32, 2, sizes, strides, data},
	{"out2", PT2BOX_BFLOAT16, 1, sizes, strides + 1, data},
	{"z", PT2BOX_INT64, 0, NULL, NULL, data},
};

/* An .npy of @v. */
static uint8_t *npy_bytes(const struct pb_array_view *v, size_t *ret_n)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	uint8_t *p;

	assert_int_equal(pb_arrays_write(fd, PB_FORMAT_NPY, v, 1, NULL), PT2BOX_OK);
	p = bytes_of_fd(fd, ret_n);
	close(fd);
	return p;
}

/* An archive by libzip. @password: encrypted. */
static uint8_t *zip_bytes(const char *const *names, size_t n, int method, bool encrypted, size_t *ret_n)
{
	zip_error_t ze;
	zip_source_t *archive = zip_source_buffer_create(NULL, 0, 0, &ze);
	zip_t *z = zip_open_from_source(archive, ZIP_TRUNCATE, &ze);
	size_t npy_n;
	uint8_t *npy = npy_bytes(&views[0], &npy_n), *out;
	zip_int64_t got;

	assert_non_null(z);
	zip_source_keep(archive);
	for (size_t i = 0; i < n; i++) {
		zip_source_t *s = zip_source_buffer(z, npy, npy_n, 0);
		zip_int64_t at = zip_file_add(z, names[i], s, 0);

		assert_true(at >= 0);
		assert_int_equal(zip_set_file_compression(z, (zip_uint64_t)at, method, 9), 0);
		if (encrypted)
			assert_int_equal(zip_file_set_encryption(z, (zip_uint64_t)at, ZIP_EM_AES_128, "x"), 0);
	}
	assert_int_equal(zip_close(z), 0);
	free(npy);
	assert_int_equal(zip_source_open(archive), 0);
	out = malloc(65536);
	got = zip_source_read(archive, out, 65536);
	zip_source_close(archive);
	zip_source_free(archive);
	assert_true(got > 0);
	*ret_n = (size_t)got;
	return out;
}

static void keeps_archive_order(void **state)
{
	static const char *const names[] = {"z.npy", "a.npy", "in10.npy", "in2.npy", "plain"};
	static const char *const expect[] = {"z", "a", "in10", "in2", "plain"};
	size_t n;

	(void)state;
	for (int deflate = 0; deflate < 2; deflate++) {
		uint8_t *p = zip_bytes(names, 5, deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE, false, &n);
		struct pb_array_file *f = NULL;
		struct pt2box_error e = {.status = PT2BOX_OK};
		float got[6];

		if (open_bytes(p, n, PB_FORMAT_NPZ, &f, &e))
			fail_msg("%s", e.text);
		assert_int_equal(pb_array_file_count(f), 5);
		for (size_t i = 0; i < 5; i++) {
			assert_string_equal(pb_array_file_get(f, i)->name, expect[i]);
			assert_int_equal(pb_array_file_read(f, i, got, &e), 0);
			assert_memory_equal(got, data, sizeof(data));
		}
		pb_array_file_free(f);
		free(p);
	}
}

static void refuses(void **state)
{
	static const char *const names[] = {"a.npy"};
	static const char *const evil[] = {"\x1b[2J\n.npy"};
	struct pb_array_file *f = NULL;
	struct pt2box_error e;
	size_t n;
	uint8_t *p = zip_bytes(names, 1, ZIP_CM_STORE, true, &n);

	(void)state;
	assert_int_equal(open_bytes(p, n, PB_FORMAT_NPZ, &f, &e), PT2BOX_BAD_TENSOR);
	free(p);
	assert_int_equal(open_bytes("not a zip at all", 16, PB_FORMAT_NPZ, &f, &e), PT2BOX_BAD_TENSOR);
	assert_non_null(strstr(e.text, "not a zip"));
	/* Names are shown; they must not be obeyed. */
	p = zip_bytes(evil, 1, ZIP_CM_STORE, false, &n);
	for (size_t i = 0; i + 6 < n; i++)
		if (memcmp(p + i, "\x93NUMPY", 6) == 0)
			p[i] = 0;
	assert_int_equal(open_bytes(p, n, PB_FORMAT_NPZ, &f, &e), PT2BOX_BAD_TENSOR);
	assert_null(strchr(e.text, '\x1b'));
	assert_null(strchr(e.text, '\n'));
	free(p);
}

static void an_archive_of_nothing(void **state)
{
	struct pb_array_file *f = round_trip(views, 0, PB_FORMAT_NPZ);

	(void)state;
	assert_int_equal(pb_array_file_count(f), 0);
	pb_array_file_free(f);
}

static void round_trips(void **state)
{
	struct pb_array_file *f = round_trip(views, 3, PB_FORMAT_NPZ);
	uint8_t got[24];

	(void)state;
	assert_int_equal(pb_array_file_count(f), 3);
	assert_string_equal(pb_array_file_get(f, 0)->name, "out0");
	assert_string_equal(pb_array_file_get(f, 1)->name, "out2");
	assert_int_equal(pb_array_file_get(f, 1)->dtype, PT2BOX_UINT16);
	assert_int_equal(pb_array_file_get(f, 2)->ndim, 0);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(pb_array_file_read(f, i, got, NULL), 0);
		assert_memory_equal(got, data, pb_array_file_get(f, i)->bytes);
	}
	pb_array_file_free(f);
}

/* More entries than 16 bits can count: the end of the archive is a zip64 one. */
static void many_entries(void **state)
{
	size_t n = 65536;
	struct pb_array_view *v = calloc(n, sizeof(*v));
	char *names = calloc(n, 8);
	struct pb_array_file *f;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		snprintf(names + i * 8, 8, "o%zu", i);
		v[i] = (struct pb_array_view){names + i * 8, PT2BOX_UINT8, 0, NULL, NULL, data};
	}
	f = round_trip(v, n, PB_FORMAT_NPZ);
	assert_int_equal(pb_array_file_count(f), n);
	assert_string_equal(pb_array_file_get(f, n - 1)->name, "o65535");
	pb_array_file_free(f);
	free(names);
	free(v);
}

/* An array of 4 GiB, of one element that is read again and again, and one behind it: both need 64 bits. */
static void zip64(void **state)
{
	static const int64_t big[2] = {1ll << 16, 1ll << 16}, none[2] = {0, 0}, row[2] = {0, 1};
	static uint8_t zeros[1 << 16];
	struct pb_array_view v[2] = {{"big", PT2BOX_UINT8, 2, big, row, zeros}, {"far", PT2BOX_FLOAT32, 2, sizes, strides, data}};
	struct pb_array_file *f = NULL;
	struct pt2box_error e = {.status = PT2BOX_OK};
	char path[] = "/tmp/pt2box-zip64-XXXXXX";
	float got[6];
	int fd;

	(void)state;
	(void)none;
	if (!getenv("PT2BOX_TEST_LARGE"))
		skip(); /* writes 4 GiB */
	fd = mkstemp(path);
	unlink(path);
	assert_int_equal(pb_arrays_write(fd, PB_FORMAT_NPZ, v, 2, &e), 0);
	if (pb_array_file_open_fd(fd, PB_FORMAT_NPZ, "big.npz", &f, &e))
		fail_msg("%s", e.text);
	close(fd);
	assert_int_equal(pb_array_file_get(f, 0)->bytes, 1ll << 32);
	assert_int_equal(pb_array_file_read(f, 1, got, &e), 0);
	assert_memory_equal(got, data, sizeof(data));
	pb_array_file_free(f);
}

static void reads_what_numpy_wrote(void **state)
{
	struct pb_array_file *f = NULL;
	struct pt2box_error e = {.status = PT2BOX_OK};
	size_t n;

	(void)state;
	if (pb_array_file_open("tests/fixtures/dtypes/in.npz", &f, &e))
		fail_msg("%s", e.text);
	assert_int_equal(pb_array_file_count(f), 10);
	assert_string_equal(pb_array_file_get(f, 9)->name, "in9");
	assert_int_equal(pb_array_file_get(f, 9)->dtype, PT2BOX_BOOL);
	for (n = 0; n < 10; n++) {
		uint8_t got[64];

		assert_true(pb_array_file_get(f, n)->bytes <= sizeof(got));
		assert_int_equal(pb_array_file_read(f, n, got, &e), 0);
	}
	pb_array_file_free(f);
}

static void survives_any_damage(void **state)
{
	static const char *const names[] = {"in0.npy", "in1.npy"};
	size_t n;
	uint8_t *p;

	(void)state;
	for (int deflate = 0; deflate < 2; deflate++) {
		p = zip_bytes(names, 2, deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE, false, &n);
		assert_int_equal(use(p, n, PB_FORMAT_NPZ), 2);
		torture(p, n, PB_FORMAT_NPZ);
		free(p);
	}
}

/* A flipped element is found by the sum. */
static void checks_the_sum(void **state)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	size_t n, found = 0;
	uint8_t *p;

	(void)state;
	assert_int_equal(pb_arrays_write(fd, PB_FORMAT_NPZ, views, 1, NULL), 0);
	p = bytes_of_fd(fd, &n);
	for (size_t i = 0; i + sizeof(data) < n; i++)
		if (memcmp(p + i, data, sizeof(data)) == 0) {
			p[i] ^= 1;
			assert_int_equal(use(p, n, PB_FORMAT_NPZ), 0);
			p[i] ^= 1;
			found++;
		}
	assert_int_equal(found, 1);
	assert_int_equal(use(p, n, PB_FORMAT_NPZ), 1);
	free(p);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_archive_order),
		cmocka_unit_test(refuses),
		cmocka_unit_test(an_archive_of_nothing),
		cmocka_unit_test(round_trips),
		cmocka_unit_test(many_entries),
		cmocka_unit_test(zip64),
		cmocka_unit_test(reads_what_numpy_wrote),
		cmocka_unit_test(survives_any_damage),
		cmocka_unit_test(checks_the_sum),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
