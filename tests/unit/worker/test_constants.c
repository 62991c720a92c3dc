/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The constants of real containers: every change, in many orders, held against what PyTorch computed for the same
 * constants; what is left behind; what cannot be done.
 */
#include "tests/unit/worker/host.inc"

#include <malloc.h>

/* ---- stateless packages ---- */

/* What a buffer may hold, and what the model computes from it. */
enum contents { EMPTY, ORIGINAL, PARTIAL, FULL, N_CONTENTS };

static const char *const outputs[N_CONTENTS] = {NULL, "out.npz", "out_partial.npz", "out_full.npz"};

struct walk {
	struct host *h;
	int memory[N_CONTENTS];
	enum contents active, inactive;
	uint64_t random;
	int step;
};

static void same_bytes(const struct host *h, int a, int b, bool all)
{
	size_t n = memory_bytes(h);
	uint8_t *x = malloc(n), *y = malloc(n);

	EXPECT(pread(a, x, n, 0) == (ssize_t)n && pread(b, y, n, 0) == (ssize_t)n);
	for (uint32_t i = 0; i < h->manifest->n_constants; i++) {
		const struct pb_constant *c = &h->manifest->constants[i];

		EXPECT(x[h->manifest->const_bytes + i] == (!c->folded && all), "%s", c->fqn);
		EXPECT(c->folded || !all || memcmp(x + c->blob_offset, y + c->blob_offset, c->data_size) == 0, "%s", c->fqn);
	}
	free(x);
	free(y);
}

static void hold_against(struct walk *w)
{
	int active = host_extract(w->h, false), inactive = host_extract(w->h, true);
	char why[256];

	for (int i = 0; i < 2; i++)
		EXPECT(host_run(w->h, "in.npz", outputs[w->active], why) == 0, "step %d, %s: %s", w->step,
		       outputs[w->active], why);
	same_bytes(w->h, active, w->memory[w->active], true);
	same_bytes(w->h, inactive, w->memory[w->inactive], w->inactive != EMPTY);
	close(active);
	close(inactive);
}

static void update(struct walk *w, bool inactive)
{
	enum contents c = ORIGINAL + check_rand(&w->random) % 3;

	EXPECT_OK(host_change(w->h, PB_CHANGE_UPDATE, inactive, w->memory[c], &e_));
	*(inactive ? &w->inactive : &w->active) = c;
}

static void must_be_refused(struct walk *w, enum pb_change kind, bool inactive)
{
	struct pt2box_error e;
	uint32_t seq = w->h->model.constants.change_seq;

	EXPECT(host_change(w->h, kind, inactive, -1, &e) == PT2BOX_USAGE);
	EXPECT(w->h->model.constants.change_seq == seq);
}

static void step(struct walk *w)
{
	enum contents c = w->active;

	switch (check_rand(&w->random) % 6) {
	case 0:
		update(w, false);
		break;
	case 1:
		update(w, true);
		break;
	case 2:
		if (w->inactive == EMPTY) {
			must_be_refused(w, PB_CHANGE_SWAP, false);
			break;
		}
		EXPECT_OK(host_change(w->h, PB_CHANGE_SWAP, false, -1, &e_));
		w->active = w->inactive;
		w->inactive = c;
		break;
	case 3:
		EXPECT_OK(host_change(w->h, PB_CHANGE_FREE_INACTIVE, false, -1, &e_));
		w->inactive = EMPTY;
		break;
	case 4:
		EXPECT_OK(host_change(w->h, PB_CHANGE_FOLD, false, -1, &e_));
		break;
	case 5:
		if (w->inactive == EMPTY)
			must_be_refused(w, PB_CHANGE_FOLD, true);
		else
			EXPECT_OK(host_change(w->h, PB_CHANGE_FOLD, true, -1, &e_));
		break;
	}
}

static struct walk begin(const char *fixture)
{
	struct walk w = {.h = host_load(fixture, -1), .active = ORIGINAL, .random = 7};

	w.memory[EMPTY] = host_memory(w.h, -1, NULL);
	w.memory[ORIGINAL] = host_extract(w.h, false);
	w.memory[PARTIAL] = host_memory(w.h, w.memory[ORIGINAL], "partial.safetensors");
	w.memory[FULL] = host_memory(w.h, w.memory[ORIGINAL], "full.safetensors");
	return w;
}

static void every_order(const char *fixture)
{
	struct walk w = begin(fixture);

	hold_against(&w);
	for (w.step = 0; w.step < 150; w.step++) {
		step(&w);
		hold_against(&w);
	}
}

static void test_every_order(void **state)
{
	static const char *const fixtures[] = {"mlp", "rtfold", "extfold", "extconst", "blobconst", "convs", "lstm", "attn"};

	(void)state;
	for (size_t i = 0; i < sizeof(fixtures) / sizeof(fixtures[0]); i++)
		host_child(every_order, fixtures[i]);
}

/* What is kept at the end of the code: the same model as mlp, with other weights. */
static void mmap_self(const char *fixture)
{
	struct host *h = host_load(fixture, -1);
	int original = host_extract(h, false);
	char why[256];

	EXPECT(h->model.constants.buffer[0].map != NULL); /* not the container's copy */
	snprintf(h->fixture, sizeof(h->fixture), "mlp");
	int other = host_memory(h, -1, "full.safetensors");

	for (int i = 0; i < 3; i++) {
		EXPECT_OK(host_change(h, PB_CHANGE_UPDATE, false, other, &e_));
		EXPECT(host_run(h, "in.npz", "out_full.npz", why) == 0, "%s", why);
		EXPECT_OK(host_change(h, PB_CHANGE_UPDATE, true, original, &e_));
		EXPECT_OK(host_change(h, PB_CHANGE_SWAP, false, -1, &e_));
		snprintf(h->fixture, sizeof(h->fixture), "%s", fixture);
		EXPECT(host_run(h, "in.npz", "out.npz", why) == 0, "%s", why);
		snprintf(h->fixture, sizeof(h->fixture), "mlp");
	}
}

static void test_mmap_self(void **state)
{
	(void)state;
	host_child(mmap_self, "mmapconst");
}

/* A template that is started anew gets what is in force. */
static void given_wins(const char *fixture)
{
	struct host *first = host_load(fixture, -1);
	int original = host_extract(first, false), full = host_memory(first, original, "full.safetensors");
	pid_t pid = fork();
	int status;

	if (pid) {
		EXPECT(waitpid(pid, &status, 0) == pid && status == 0);
		return;
	}
	/* The same package again: under another name of the file it is another library. */
	(void)dlclose(first->model.lib);
	char *args[] = {(char *)"test_constants", (char *)"--given", (char *)fixture, NULL};

	EXPECT(dup2(full, 50) == 50);
	execv("/proc/self/exe", args);
	_exit(1);
}

static void run_given(const char *fixture)
{
	struct host *h = host_load(fixture, 50);
	char why[256];

	if (h->model.constants.stateful) { /* its state begins with what was given, too */
		int now = host_extract(h, false);

		same_bytes(h, now, 50, true);
	} else {
		EXPECT(host_run(h, "in.npz", "out_full.npz", why) == 0, "%s", why);
	}
}

static void test_given_memory_wins(void **state)
{
	static const char *const fixtures[] = {"mlp", "rtfold", "extfold", "extconst", "blobconst", "mutbuf", "extmut", "blobmut"};

	(void)state;
	for (size_t i = 0; i < sizeof(fixtures) / sizeof(fixtures[0]); i++)
		host_child(given_wins, fixtures[i]);
}

/* ---- nothing is left behind ---- */

static size_t n_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	size_t n = 0;

	for (int c; (c = fgetc(f)) != EOF;)
		n += c == '\n';
	fclose(f);
	return n;
}

static void many_updates(struct walk *w, int n)
{
	for (int i = 0; i < n; i++) {
		update(w, i % 3 == 0);
		if (i % 3 == 0) {
			EXPECT_OK(host_change(w->h, PB_CHANGE_SWAP, false, -1, &e_));
			w->active = w->inactive;
			EXPECT_OK(host_change(w->h, PB_CHANGE_FREE_INACTIVE, false, -1, &e_));
			w->inactive = EMPTY;
		}
	}
	hold_against(w);
}

static void leaves_nothing(const char *fixture)
{
	struct walk w = begin(fixture);
	size_t maps, heap;

	many_updates(&w, 20);
	maps = n_mappings();
	heap = mallinfo2().uordblks + mallinfo2().hblkhd;
	many_updates(&w, 200);
	EXPECT(n_mappings() <= maps, "%zu mappings, then %zu", maps, n_mappings());
	EXPECT(mallinfo2().uordblks + mallinfo2().hblkhd < heap + 4096, "%zu bytes, then %zu", heap,
	       mallinfo2().uordblks + mallinfo2().hblkhd);
}

static void test_nothing_is_left(void **state)
{
	static const char *const fixtures[] = {"mlp", "extfold", "rtfold", "blobconst"};

	(void)state;
	if (CHECK_SANITIZED)
		skip();
	for (size_t i = 0; i < sizeof(fixtures) / sizeof(fixtures[0]); i++)
		host_child(leaves_nothing, fixtures[i]);
}

/* ---- failures ---- */

static int32_t (*real_set)(void *, const struct pb_aoti_constant *, size_t, bool, bool);
static int32_t (*real_fold)(void *, bool, void *, void *);
static int fail_in;

static int32_t set_that_fails(void *c, const struct pb_aoti_constant *p, size_t n, bool inactive, bool all)
{
	return fail_in-- == 0 ? 1 : real_set(c, p, n, inactive, all);
}

static int32_t fold_that_fails(void *c, bool inactive, void *stream, void *proxy)
{
	return fail_in-- == 0 ? 1 : real_fold(c, inactive, stream, proxy);
}

/* On failure all is as before. */
static void failing(struct walk *w)
{
	struct pt2box_error e;
	const size_t maps = n_mappings();

	for (int inactive = 0; inactive < 2; inactive++) {
		fail_in = 0;
		EXPECT(host_change(w->h, PB_CHANGE_UPDATE, inactive, w->memory[FULL], &e) == PT2BOX_MODEL_ERROR);
		hold_against(w);
	}
	EXPECT(CHECK_SANITIZED || n_mappings() <= maps); /* the sanitizer maps for itself */
	EXPECT_OK(host_change(w->h, PB_CHANGE_UPDATE, true, w->memory[PARTIAL], &e_));
	w->inactive = PARTIAL;
	fail_in = 0;
	EXPECT(host_change(w->h, PB_CHANGE_UPDATE, true, w->memory[FULL], &e) == PT2BOX_MODEL_ERROR);
	hold_against(w);
	EXPECT_OK(host_change(w->h, PB_CHANGE_SWAP, false, -1, &e_));
	w->inactive = w->active;
	w->active = PARTIAL;
	hold_against(w);
}

static void failing_updates(const char *fixture)
{
	struct walk w = begin(fixture);

	real_set = w.h->model.constants.call.set;
	real_fold = w.h->model.constants.call.fold;
	fail_in = -1;
	w.h->model.constants.call.set = set_that_fails;
	failing(&w);
	if (!w.h->model.constants.folds)
		return;
	w.h->model.constants.call.set = real_set;
	w.h->model.constants.call.fold = fold_that_fails;
	EXPECT_OK(host_change(w.h, PB_CHANGE_UPDATE, false, w.memory[ORIGINAL], &e_));
	EXPECT_OK(host_change(w.h, PB_CHANGE_FREE_INACTIVE, false, -1, &e_));
	w.active = ORIGINAL;
	w.inactive = EMPTY;
	failing(&w);
}

static void test_failing_updates(void **state)
{
	(void)state;
	host_child(failing_updates, "mlp");
	host_child(failing_updates, "extfold");
	host_child(failing_updates, "rtfold");
}

/* A package of an older torch: the missing call is named, and values can be read where they are known. */
static void older(const char *fixture)
{
	struct host *h = host_load(fixture, -1);
	int memory = host_memory(h, -1, NULL);
	struct pt2box_error e;
	char why[256];

	EXPECT(host_change(h, PB_CHANGE_UPDATE, false, memory, &e) == PT2BOX_UNSUPPORTED);
	EXPECT(strstr(e.text, "UpdateUserManagedConstantBufferPairs") != NULL, "%s", e.text);
	EXPECT(pb_constants_extract(&h->model, false, memory, &e) == PT2BOX_UNSUPPORTED);
	EXPECT(strstr(e.text, "ExtractConstantsMapEntries") != NULL, "%s", e.text);
	EXPECT(host_run(h, "in.npz", "out.npz", why) == 0, "%s", why);
}

static void test_older_package(void **state)
{
	(void)state;
	host_child(older, "torch29");
}

/* ---- packages with state ---- */

static const struct {
	const char *file, *out;
	bool swap;
} updates[] = {
	{"full.safetensors", "out_full.npz", false},
	{"partial.safetensors", "out_partial.npz", false},
	{"partial.safetensors", "out_swap.npz", true},
};

static void as_pytorch(const char *fixture, size_t i)
{
	struct host *h = host_load(fixture, -1);
	int original = host_extract(h, false);
	int memory = host_memory(h, original, updates[i].file);
	char why[256];

	EXPECT(h->model.constants.stateful);
	EXPECT(host_run(h, "in.npz", "out.npz", why) == 0, "%s", why);
	EXPECT(host_run(h, "in_1.npz", "out_1.npz", why) == 0, "%s", why);
	EXPECT_OK(host_change(h, PB_CHANGE_UPDATE, updates[i].swap, memory, &e_));
	if (updates[i].swap)
		EXPECT_OK(host_change(h, PB_CHANGE_SWAP, false, -1, &e_));
	EXPECT(host_run(h, "in.npz", updates[i].out, why) == 0, "%s: %s", updates[i].out, why);
}

static void full(const char *fixture)
{
	as_pytorch(fixture, 0);
}

static void partial(const char *fixture)
{
	as_pytorch(fixture, 1);
}

static void swapped(const char *fixture)
{
	as_pytorch(fixture, 2);
}

static const char *const stateful[] = {"mutbuf", "extmut", "blobmut"};

static void test_state_as_in_pytorch(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		host_child(full, stateful[i]);
		host_child(partial, stateful[i]);
		host_child(swapped, stateful[i]);
	}
}

/* mutbuf returns its count: each buffer has one of its own, begun with that of the other one. */
static void counts(const char *fixture)
{
	struct host *h = host_load(fixture, -1);
	int original = host_extract(h, false), memory = host_memory(h, original, "partial.safetensors");

	for (int i = 1; i <= 3; i++)
		EXPECT(host_first(h, "in.npz", 1) == (float)i);
	for (int round = 0; round < 50; round++) {
		float now = host_first(h, "in.npz", 1);

		EXPECT_OK(host_change(h, PB_CHANGE_UPDATE, false, memory, &e_));
		EXPECT(host_first(h, "in.npz", 1) == now + 1);
		EXPECT_OK(host_change(h, PB_CHANGE_UPDATE, true, memory, &e_));
		EXPECT(host_first(h, "in.npz", 1) == now + 2);
		EXPECT_OK(host_change(h, PB_CHANGE_SWAP, false, -1, &e_));
		EXPECT(host_first(h, "in.npz", 1) == now + 2);
		EXPECT(host_first(h, "in.npz", 1) == now + 3);
		EXPECT_OK(host_change(h, PB_CHANGE_SWAP, false, -1, &e_));
		EXPECT(host_first(h, "in.npz", 1) == now + 3);
		EXPECT_OK(host_change(h, PB_CHANGE_SWAP, false, -1, &e_));
		EXPECT_OK(host_change(h, PB_CHANGE_FREE_INACTIVE, false, -1, &e_));
		EXPECT(host_first(h, "in.npz", 1) == now + 4);
	}
	/* Forks have their own pages. */
	int status;
	float now = host_first(h, "in.npz", 1);
	pid_t pid = fork();

	if (pid == 0) {
		EXPECT(host_first(h, "in.npz", 1) == now + 1);
		EXPECT(host_first(h, "in.npz", 1) == now + 2);
		_exit(0);
	}
	EXPECT(waitpid(pid, &status, 0) == pid && status == 0);
	EXPECT(host_first(h, "in.npz", 1) == now + 1);
}

static void test_counts(void **state)
{
	(void)state;
	host_child(counts, "mutbuf");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_every_order),
		CHECK_TEST(test_mmap_self),
		CHECK_TEST(test_given_memory_wins),
		CHECK_TEST(test_nothing_is_left),
		CHECK_TEST(test_failing_updates),
		CHECK_TEST(test_older_package),
		CHECK_TEST(test_state_as_in_pytorch),
		CHECK_TEST(test_counts),
	};

	if (argc == 3 && strcmp(argv[1], "--given") == 0) {
		run_given(argv[2]);
		_exit(0);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
