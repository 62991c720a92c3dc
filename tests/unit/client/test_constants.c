/* SPDX-License-Identifier: Apache-2.0 */
/* Constants on their way to a broker and back: what is refused before anything is copied, the file that is made, turns of
 * threads, values from a broker or worker that lies. */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "client/cmd/array.h"
#include "client/constants.h"
#include "tests/lib/check.h"
#include "tests/unit/client/fake.h"

/* As declared: w, stored with its columns first; a buffer; a folded one; one without elements. */
static struct pb_constant declared[] = {
	{.name = "fc_weight", .fqn = "fc.weight", .dtype = PT2BOX_FLOAT32, .ndim = 2, .sizes = {3, 2}, .strides = {1, 3},
	 .data_size = 24, .blob_offset = 0, .type = PB_CONST_PARAMETER},
	{.name = "buf", .fqn = "b.uf", .dtype = PT2BOX_INT64, .ndim = 0, .data_size = 16, .storage_offset = 1,
	 .blob_offset = 64, .type = PB_CONST_BUFFER},
	{.name = "_FOLDED_0", .fqn = "", .dtype = PT2BOX_FLOAT32, .ndim = 1, .sizes = {2}, .strides = {1}, .data_size = 8,
	 .folded = true, .type = PB_CONST_FOLDED},
	{.name = "none", .fqn = "no.ne", .dtype = PT2BOX_FLOAT32, .ndim = 1, .sizes = {0}, .strides = {1}, .blob_offset = 128,
	 .type = PB_CONST_PARAMETER},
	{.name = "fc.weight", .fqn = "odd", .dtype = PT2BOX_COMPLEX128, .ndim = 1, .sizes = {2}, .strides = {1},
	 .data_size = 32, .blob_offset = 128, .type = PB_CONST_PARAMETER},
};
static struct pb_manifest manifest = {.constants = declared,
				      .n_constants = 5,
				      .const_bytes = 192,
				      .const_source = PB_CONSTS_EXTERNAL,
				      .in_spec = "",
				      .out_spec = ""};

static float w_dense[6] = {0, 1, 2, 3, 4, 5}, w_columns[6] = {0, 2, 4, 1, 3, 5};
static int64_t buf_value = -7;
static double odd_value[4] = {1, 2, 3, 4};

static struct pt2box_tensor *lend(int32_t dtype, int32_t ndim, const int64_t *sizes, const int64_t *strides, void *data)
{
	struct pt2box_tensor *t;

	assert_int_equal(pt2box_tensor_lend(dtype, ndim, sizes, strides, data, &t, NULL), PT2BOX_OK);
	return t;
}

/* w as the package has it, and dense; the others. */
static struct pt2box_tensor *w, *w_c_order, *buf, *none, *odd;

static int make_tensors(void **state)
{
	(void)state;
	w = lend(PT2BOX_FLOAT32, 2, (int64_t[]){3, 2}, (int64_t[]){1, 3}, w_columns);
	w_c_order = lend(PT2BOX_FLOAT32, 2, (int64_t[]){3, 2}, NULL, w_dense);
	buf = lend(PT2BOX_INT64, 0, NULL, NULL, &buf_value);
	none = lend(PT2BOX_FLOAT32, 1, (int64_t[]){0}, NULL, NULL);
	odd = lend(PT2BOX_COMPLEX128, 1, (int64_t[]){2}, NULL, odd_value);
	return 0;
}

static int free_tensors(void **state)
{
	(void)state;
	pt2box_tensor_free(w);
	pt2box_tensor_free(w_c_order);
	pt2box_tensor_free(buf);
	pt2box_tensor_free(none);
	pt2box_tensor_free(odd);
	return 0;
}

/* ---- what is refused here ---- */

static void refused(const struct pt2box_constant *list, size_t n, uint32_t flags, pb_status want, const char *text)
{
	struct pt2box_error e;
	pb_status st = pb_constants_check(&manifest, list, n, flags, &e);

	if (st != want || !strstr(e.text, text))
		fail_msg("%s: %s, not %s: %s", pt2box_status_name(st), e.text, pt2box_status_name(want), text);
}

static void allowed(const struct pt2box_constant *list, size_t n, uint32_t flags)
{
	struct pt2box_error e;

	if (pb_constants_check(&manifest, list, n, flags, &e))
		fail_msg("%s: %s", pt2box_status_name(e.status), e.text);
}

static void test_names(void **state)
{
	struct pt2box_constant list[] = {{"fc.weight", w}, {"b.uf", buf}, {"odd", odd}, {"x", w}, {"y\n\x1b", w}};
	struct pt2box_constant internal[] = {{"fc_weight", w}, {"buf", buf}};
	struct pt2box_constant twice[] = {{"fc.weight", w}, {"fc_weight", w}};
	struct pt2box_constant many[200];

	(void)state;
	allowed(list, 3, 0);
	allowed(list, 0, 0);
	allowed(NULL, 0, PT2BOX_CONSTANTS_INACTIVE);
	refused(list, 5, 0, PT2BOX_NOT_FOUND, "const.name: the model has no constant x, y??");
	refused(internal, 2, 0, PT2BOX_NOT_FOUND, "fc_weight, buf");
	allowed(internal, 2, PT2BOX_CONSTANTS_NAMES);
	/* Of two that could be meant it is the one with that fully qualified name: the other has another dtype. */
	allowed(list, 3, PT2BOX_CONSTANTS_NAMES);
	refused(twice, 2, PT2BOX_CONSTANTS_NAMES, PT2BOX_USAGE, "\"fc_weight\" is given twice");
	twice[1].name = "fc.weight";
	refused(twice, 2, 0, PT2BOX_USAGE, "\"fc.weight\" is given twice");
	for (size_t i = 0; i < 200; i++)
		many[i] = (struct pt2box_constant){"a.name.that.is.not", w};
	refused(many, 200, 0, PT2BOX_NOT_FOUND, "more");
	refused(list, 3, 64, PT2BOX_USAGE, "0x40");
	refused(NULL, 1, 0, PT2BOX_USAGE, "NULL");
	list[1].tensor = NULL;
	refused(list, 2, 0, PT2BOX_USAGE, "entry 1 has no tensor");
	list[1] = (struct pt2box_constant){NULL, w};
	refused(list, 2, 0, PT2BOX_USAGE, "entry 1 has no name");
}

static void test_full(void **state)
{
	struct pt2box_constant list[] = {{"fc.weight", w}, {"odd", odd}, {"b.uf", buf}};

	(void)state;
	/* Neither buffers, nor folded ones, nor those without elements must be there. */
	allowed(list, 2, PT2BOX_CONSTANTS_FULL);
	allowed(list, 3, PT2BOX_CONSTANTS_FULL);
	refused(list, 1, PT2BOX_CONSTANTS_FULL, PT2BOX_NOT_FOUND, "const.name: not given: odd");
	refused(NULL, 0, PT2BOX_CONSTANTS_FULL, PT2BOX_NOT_FOUND, "fc.weight, odd");
}

static void test_shapes(void **state)
{
	struct pt2box_tensor *flat = lend(PT2BOX_FLOAT32, 1, (int64_t[]){6}, NULL, w_dense),
			     *turned = lend(PT2BOX_FLOAT32, 2, (int64_t[]){2, 3}, NULL, w_dense);
	struct pt2box_constant list[] = {{"fc.weight", buf}};

	(void)state;
	refused(list, 1, 0, PT2BOX_BAD_TENSOR, "const.dtype: \"fc.weight\" is int64, the model has float32");
	list[0].tensor = flat;
	refused(list, 1, 0, PT2BOX_BAD_TENSOR, "const.shape: \"fc.weight\" has the shape [6], the model has [3, 2]");
	list[0].tensor = turned;
	refused(list, 1, 0, PT2BOX_BAD_TENSOR, "[2, 3], the model has [3, 2]");
	list[0].tensor = w_c_order;
	allowed(list, 1, 0);
	refused(list, 1, PT2BOX_CONSTANTS_USER_MANAGED, PT2BOX_BAD_TENSOR,
		"const.stride: \"fc.weight\" has the strides [2, 1], the model has [1, 3]");
	list[0].tensor = w;
	allowed(list, 1, PT2BOX_CONSTANTS_USER_MANAGED);
	pt2box_tensor_free(flat);
	pt2box_tensor_free(turned);
}

static void test_undescribed(void **state)
{
	struct pt2box_constant list[] = {{"fc.weight", w}};
	struct pb_manifest m = {.const_source = PB_CONSTS_EMBEDDED_RO};
	struct pt2box_error e;

	(void)state;
	assert_int_equal(pb_constants_check(&m, list, 1, 0, &e), PT2BOX_UNSUPPORTED);
	m.const_source = PB_CONSTS_NONE;
	assert_int_equal(pb_constants_check(&m, list, 1, 0, &e), PT2BOX_NOT_FOUND);
	assert_int_equal(pb_constants_check(&m, NULL, 0, 0, &e), PT2BOX_OK);
}

/* ---- the file ---- */

static const struct pb_array *array_named(const struct pb_array_file *f, const char *name, size_t *ret_i)
{
	for (*ret_i = 0; *ret_i < pb_array_file_count(f); ++*ret_i)
		if (strcmp(pb_array_file_get(f, *ret_i)->name, name) == 0)
			return pb_array_file_get(f, *ret_i);
	return NULL;
}

static void has_array(struct pb_array_file *f, const char *name, int32_t dtype, const void *data, size_t bytes)
{
	size_t i;
	const struct pb_array *a = array_named(f, name, &i);
	uint8_t got[64];

	assert_non_null(a);
	assert_int_equal(a->dtype, dtype);
	assert_int_equal(a->bytes, bytes);
	assert_int_equal(pb_array_file_read(f, i, got, NULL), PT2BOX_OK);
	assert_memory_equal(got, data, bytes);
}

static void test_file(void **state)
{
	/* Written dense, whatever the strides; at odd places, since names are of any length. */
	struct pt2box_constant list[] = {{"fc.weight", w}, {"b.uf", buf}, {"no.ne", none}, {"odd\"\\", odd}};
	struct pb_array_file *f;
	int fd;

	(void)state;
	for (int order = 0; order < 2; order++) {
		assert_int_equal(pb_constants_file(list, 4, &fd, NULL), PT2BOX_OK);
		assert_int_equal(fcntl(fd, F_GET_SEALS),
				 F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
		assert_int_equal(pb_array_file_open_fd(fd, PB_FORMAT_SAFETENSORS, "made", &f, NULL), PT2BOX_OK);
		assert_int_equal(pb_array_file_count(f), 4);
		has_array(f, "fc.weight", PT2BOX_FLOAT32, w_dense, 24);
		has_array(f, "b.uf", PT2BOX_INT64, &buf_value, 8);
		has_array(f, "no.ne", PT2BOX_FLOAT32, "", 0);
		has_array(f, "odd\"\\", PT2BOX_COMPLEX128, odd_value, 32);
		pb_array_file_free(f);
		close(fd);
		list[0].tensor = w_c_order;
	}
	assert_int_equal(pb_constants_file(NULL, 0, &fd, NULL), PT2BOX_OK);
	assert_int_equal(lseek(fd, 0, SEEK_END), 16);
	close(fd);
}

/* Over several pages, not at the beginning of one, in strides with holes. */
static void test_large_strided(void **state)
{
	enum { ROWS = 300, COLUMNS = 100 };
	int32_t *data = calloc(2 * ROWS * COLUMNS, sizeof(*data)), *got = calloc(ROWS * COLUMNS, sizeof(*got));
	struct pt2box_tensor *t = lend(PT2BOX_INT32, 2, (int64_t[]){ROWS, COLUMNS}, (int64_t[]){2, 2 * ROWS}, data);
	struct pt2box_constant list[] = {{"one", buf}, {"t", t}};
	struct pb_array_file *f;
	size_t i;
	int fd;

	(void)state;
	for (int r = 0; r < ROWS; r++)
		for (int c = 0; c < COLUMNS; c++) {
			data[2 * r + 2 * ROWS * c] = r * COLUMNS + c;
			data[2 * r + 2 * ROWS * c + 1] = -1;
		}
	assert_int_equal(pb_constants_file(list, 2, &fd, NULL), PT2BOX_OK);
	assert_int_equal(pb_array_file_open_fd(fd, PB_FORMAT_SAFETENSORS, "made", &f, NULL), PT2BOX_OK);
	assert_non_null(array_named(f, "t", &i));
	assert_int_equal(pb_array_file_read(f, i, got, NULL), PT2BOX_OK);
	for (int k = 0; k < ROWS * COLUMNS; k++)
		assert_int_equal(got[k], k);
	pb_array_file_free(f);
	close(fd);
	pt2box_tensor_free(t);
	free(data);
	free(got);
}

/* ---- requests ---- */

static struct fake f;

static void open_model(void)
{
	fake_connect(&f);
	fake_model(&f, 1, 1, 65536, 65536);
	f.m->manifest = &manifest;
}

static void close_model(void)
{
	f.m->manifest = NULL; /* not from a decoder */
	fake_close(&f);
}

/* The next request, waited for. */
static const struct pb_rx *hear(void)
{
	const struct pb_rx *rx;

	while (!(rx = fake_hear(&f)))
		usleep(200);
	return rx;
}

struct expected {
	uint64_t change, inactive, full, names;
	pb_status answer;
	int fd; /* one came with it */
};

static void *answer_change(void *data)
{
	const struct expected *e = data;
	struct pb_rx *rx = malloc(sizeof(*rx));
	struct pb_msg_failed failed = {.status = (uint64_t)e->answer, .text = "const.x: because"};
	const struct pb_msg_change_constants *q = &rx->msg.change_constants;

	/* With its descriptor, which fake_hear() would close. */
	assert_int_equal(pb_recv(f.broker, PB_CLIENT, PB_BROKER, PB_STATE_READY, false, rx, NULL), PT2BOX_OK);
	assert_int_equal(rx->row->id, PB_MSG_change_constants);
	assert_int_equal(q->model, 3);
	assert_int_equal(q->change, e->change);
	assert_int_equal(q->inactive, e->inactive);
	assert_int_equal(q->full, e->full);
	assert_int_equal(q->names, e->names);
	assert_int_equal(rx->fds.n, e->fd);
	pb_fds_close(&rx->fds);
	failed.request = q->request;
	if (e->answer)
		fake_say(&f, PB_MSG_failed, &failed, NULL, 0);
	else
		fake_say(&f, PB_MSG_done, &(struct pb_msg_done){.request = q->request}, NULL, 0);
	free(rx);
	return NULL;
}

static struct pt2box_constant two[] = {{"fc.weight", NULL}, {"odd", NULL}};

static pb_status load(struct pt2box_error *e)
{
	return pt2box_load_constants(f.m, two, 2, 0, e);
}

static pb_status load_all_flags(struct pt2box_error *e)
{
	return pt2box_load_constants(f.m, two, 2, 15, e);
}

static pb_status load_fd(struct pt2box_error *e)
{
	int fd;
	pb_status st;

	assert_int_equal(pb_memfd_from("x", "x", 1, &fd, NULL), PT2BOX_OK);
	st = pt2box_load_constants_fd(f.m, fd, PT2BOX_CONSTANTS_FULL, e);
	close(fd);
	return st;
}

static pb_status swap(struct pt2box_error *e)
{
	return pt2box_swap_constants(f.m, e);
}

static pb_status free_inactive(struct pt2box_error *e)
{
	return pt2box_free_inactive_constants(f.m, e);
}

static pb_status fold(struct pt2box_error *e)
{
	return pt2box_fold_constants(f.m, 0, e);
}

static pb_status fold_inactive(struct pt2box_error *e)
{
	return pt2box_fold_constants(f.m, 7, e);
}

static const struct {
	pb_status (*call)(struct pt2box_error *e);
	struct expected e;
} changes[] = {
	{load, {.change = PB_CHANGE_UPDATE, .fd = 1}},
	{load_all_flags, {.change = PB_CHANGE_UPDATE, .inactive = 1, .full = 1, .names = 1, .fd = 1}},
	{load_fd, {.change = PB_CHANGE_UPDATE, .full = 1, .fd = 1}},
	{swap, {.change = PB_CHANGE_SWAP}},
	{free_inactive, {.change = PB_CHANGE_FREE_INACTIVE, .inactive = 1}},
	{fold, {.change = PB_CHANGE_FOLD}},
	{fold_inactive, {.change = PB_CHANGE_FOLD, .inactive = 1}},
};

static void test_changes(void **state)
{
	struct pt2box_error err;
	pthread_t broker;

	(void)state;
	two[0].tensor = w;
	two[1].tensor = odd;
	open_model();
	for (size_t i = 0; i < 2 * sizeof(changes) / sizeof(changes[0]); i++) {
		struct expected e = changes[i / 2].e;

		e.answer = i % 2 ? PT2BOX_BAD_TENSOR : PT2BOX_OK;
		assert_int_equal(pthread_create(&broker, NULL, answer_change, &e), 0);
		assert_int_equal(changes[i / 2].call(&err), e.answer);
		if (e.answer)
			assert_string_equal(err.text, "const.x: because");
		pthread_join(broker, NULL);
	}
	/* None of these reaches a broker. */
	assert_int_equal(pt2box_load_constants_fd(f.m, -1, 0, &err), PT2BOX_USAGE);
	assert_int_equal(pt2box_load_constants_fd(f.m, 0, 16, &err), PT2BOX_USAGE);
	two[0].tensor = odd;
	assert_int_equal(load(&err), PT2BOX_BAD_TENSOR);
	f.m->session = 9;
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
		assert_int_equal(changes[i].call(&err), PT2BOX_USAGE);
	f.m->session = 0;
	assert_null(fake_hear(&f));
	close_model();
}

#define CHANGERS 6

static void *change_once(void *status)
{
	*(pb_status *)status = swap(NULL);
	return NULL;
}

/* A broker takes one change at a time. */
static void test_turns(void **state)
{
	pthread_t thread[CHANGERS];
	pb_status st[CHANGERS];

	(void)state;
	open_model();
	for (int i = 0; i < CHANGERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, change_once, &st[i]), 0);
	for (int i = 0; i < CHANGERS; i++) {
		uint64_t request = hear()->msg.change_constants.request;

		usleep(5000);
		assert_null(fake_hear(&f));
		fake_say(&f, PB_MSG_done, &(struct pb_msg_done){.request = request}, NULL, 0);
	}
	for (int i = 0; i < CHANGERS; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(st[i], PT2BOX_OK);
	}
	close_model();
}

/* ---- values ---- */

struct values {
	uint8_t bytes[192 + 5];
	uint64_t size;
	bool sealed;
	uint64_t expect_session, expect_inactive;
};

static struct values good_values(void)
{
	struct values v = {.size = 192 + 5, .sealed = true};

	memcpy(v.bytes, w_columns, 24);
	memcpy(v.bytes + 72, &buf_value, 8);
	memcpy(v.bytes + 128, odd_value, 32);
	memset(v.bytes + 192, 1, 5);
	return v;
}

static void *answer_read(void *data)
{
	const struct values *v = data;
	const struct pb_rx *rx = hear();
	struct pb_msg_constants_values m = {.request = rx->msg.read_constants.request};
	int fd;

	assert_int_equal(rx->row->id, PB_MSG_read_constants);
	assert_int_equal(rx->msg.read_constants.model, 3);
	assert_int_equal(rx->msg.read_constants.session, v->expect_session);
	assert_int_equal(rx->msg.read_constants.inactive, v->expect_inactive);
	if (v->sealed) {
		assert_int_equal(pb_memfd_from("values", v->bytes, v->size, &fd, NULL), PT2BOX_OK);
	} else {
		assert_int_equal(pb_memfd("values", v->size, &fd, NULL), PT2BOX_OK);
		assert_int_equal(pwrite(fd, v->bytes, v->size, 0), v->size);
	}
	fake_say(&f, PB_MSG_constants_values, &m, &fd, 1);
	close(fd);
	return NULL;
}

static pb_status extract(struct values *v, struct pt2box_constant **list, size_t *n, struct pt2box_error *e)
{
	pthread_t broker;
	pb_status st;

	*list = NULL;
	*n = 0;
	assert_int_equal(pthread_create(&broker, NULL, answer_read, v), 0);
	st = pt2box_extract_constants(f.m, v->expect_inactive != 0, list, n, e);
	pthread_join(broker, NULL);
	return st;
}

static void test_extract(void **state)
{
	struct values v = good_values();
	const struct pt2box_tensor_info *t;
	struct pt2box_constant *list, *other;
	size_t n, m;

	(void)state;
	open_model();
	f.m->session = 4;
	v.expect_session = 4;
	v.expect_inactive = 1;
	assert_int_equal(extract(&v, &list, &n, NULL), PT2BOX_OK);
	f.m->session = 0;
	assert_int_equal(n, 4); /* without the folded one */
	assert_string_equal(list[0].name, "fc.weight");
	t = pt2box_tensor_get_info(list[0].tensor);
	assert_int_equal(t->ndim, 2);
	assert_int_equal(t->strides[1], 3);
	assert_int_equal(t->readonly, 1);
	assert_memory_equal(t->data, w_columns, 24);
	assert_string_equal(list[1].name, "b.uf");
	assert_int_equal(*(int64_t *)pt2box_tensor_get_info(list[1].tensor)->data, -7); /* after its storage offset */
	assert_int_equal(pt2box_tensor_get_info(list[2].tensor)->numel, 0);
	assert_memory_equal(pt2box_tensor_get_info(list[3].tensor)->data, odd_value, 32);
	/* Not all are there, and none. */
	v.expect_session = 0;
	v.bytes[192] = v.bytes[195] = 0;
	assert_int_equal(extract(&v, &other, &m, NULL), PT2BOX_OK);
	assert_int_equal(m, 2);
	assert_string_equal(other[0].name, "b.uf");
	assert_string_equal(other[1].name, "odd");
	pt2box_free_constants(other, m);
	memset(v.bytes + 192, 0, 5);
	assert_int_equal(extract(&v, &other, &m, NULL), PT2BOX_OK);
	assert_int_equal(m, 0);
	pt2box_free_constants(other, m);
	pt2box_free_constants(NULL, 5);
	/* They live on without the model, and one without the others. */
	close_model();
	pt2box_tensor_free(list[0].tensor);
	list[0].tensor = NULL;
	assert_memory_equal(pt2box_tensor_get_info(list[3].tensor)->data, odd_value, 32);
	pt2box_free_constants(list, n);
}

static void refused_values(struct values v, pb_status want)
{
	struct pt2box_constant *list;
	struct pt2box_error e;
	size_t n;

	assert_int_equal(extract(&v, &list, &n, &e), want);
	assert_int_equal(e.status, want);
	assert_true(e.text[0]);
	assert_null(list); /* not written */
}

/* Memory that is not as it should be, a table that cannot be, a package whose constants lie elsewhere. */
static void test_lies(void **state)
{
	struct pb_constant kept = declared[1];
	struct values v;

	(void)state;
	open_model();
	v = good_values();
	v.sealed = false; /* it could change, or shrink, under us */
	refused_values(v, PT2BOX_PROTOCOL);
	v = good_values();
	v.size--;
	refused_values(v, PT2BOX_PROTOCOL);
	v.size = 0;
	refused_values(v, PT2BOX_PROTOCOL);
	v = good_values();
	v.bytes[192 + 2] = 2;
	refused_values(v, PT2BOX_MODEL_PROTOCOL);
	v.bytes[192 + 2] = 255;
	refused_values(v, PT2BOX_MODEL_PROTOCOL);
	v = good_values();
	declared[1].blob_offset = 177; /* its last byte is one too far */
	refused_values(v, PT2BOX_PROTOCOL);
	declared[1].blob_offset = UINT64_MAX - 8;
	refused_values(v, PT2BOX_PROTOCOL);
	declared[1].blob_offset = 68; /* of eight bytes each: an odd place */
	refused_values(v, PT2BOX_PROTOCOL);
	declared[1] = kept;
	declared[1].storage_offset = 2;
	refused_values(v, PT2BOX_PROTOCOL);
	declared[1].storage_offset = INT64_MAX;
	refused_values(v, PT2BOX_PROTOCOL);
	declared[1].storage_offset = -1;
	refused_values(v, PT2BOX_PROTOCOL);
	declared[1] = kept;
	declared[1].dtype = 99;
	refused_values(v, PT2BOX_BAD_TENSOR);
	declared[1] = kept;
	manifest.const_bytes = UINT64_MAX - 2;
	refused_values(v, PT2BOX_PROTOCOL);
	manifest.const_bytes = 192;
	close_model();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_names),	  CHECK_TEST(test_full),	  CHECK_TEST(test_shapes),
		CHECK_TEST(test_undescribed), CHECK_TEST(test_file), CHECK_TEST(test_large_strided),
		CHECK_TEST(test_changes), CHECK_TEST(test_turns),	  CHECK_TEST(test_extract),
		CHECK_TEST(test_lies),
	};

	return cmocka_run_group_tests(tests, make_tensors, free_tensors);
}
