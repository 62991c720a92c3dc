/* SPDX-License-Identifier: Apache-2.0 */
/* See options.h. */
#include "client/cmd/options.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define V(verb) (1u << CMD_##verb)
#define LOADING (V(RUN) | V(BENCH) | V(BATCH))
#define N(a) (sizeof(a) / sizeof((a)[0]))

enum kind { TEXT, FLAG, INPUT, U32, I32, MS, BYTES };

static const struct option_row {
	const char *name;
	char letter; /* 0: none */
	const char *value;
	uint32_t verbs;
	enum kind kind;
	size_t at;
	int64_t min, max;
	const char *help;
} rows[] = {
#define AT(field) offsetof(struct cmd_options, field)
	{"input", 'i', "PATH", V(BATCH), INPUT, 0, 0, 0, "a folder (one item a file), a list of files, or one file, whose rows are the items"},
	{"output", 'o', "DIR", V(BATCH), TEXT, AT(output), 0, 0, "results under the inputs' names, quarantine/, and the journal in .pt2box/"},
	{"input", 'i', "FILE", LOADING & ~V(BATCH), INPUT, 0, 0, 0, "inputs: .npz (arrays in archive order), .npy or .safetensors; may be repeated"},
	{"output", 'o', "FILE", V(RUN), TEXT, AT(output), 0, 0, "outputs: .npz (out0, out1, ...), .npy or .safetensors"},
	{"name", 0, "MODEL", LOADING | V(INSPECT), TEXT, AT(name), 0, 0, "model inside the package (default \"model\")"},
	{"backend", 0, "B", LOADING, TEXT, AT(backend), 0, 0, "auto (default), native, or torch: PyTorch's own library"},
	{"profile", 0, "P", LOADING, TEXT, AT(profile), 0, 0, "confinement: default or strict"},
	{"constants", 0, "FILE", LOADING, TEXT, AT(constants), 0, 0, ".safetensors with all constants: of a package that has none, or instead of its own"},
	{"ops", 0, "FILE", LOADING, TEXT, AT(ops), 0, 0, "operators that the package calls by name: a plugin in C (pt2box_op.h), a library made for PyTorch, or Python"},
	{"workers", 'w', "N", V(BATCH), U32, AT(runners), 1, 64, "worker processes (default: as many as there are CPUs)"},
	{"runners", 0, "N", LOADING & ~V(BATCH), U32, AT(runners), 1, 64, "worker processes (default 1)"},
	{"threads", 0, "N", LOADING, U32, AT(threads), 1, 256, "threads of each worker (default 1)"},
	{"single-threaded", 0, NULL, LOADING, FLAG, AT(single_threaded), 0, 0, "as PyTorch's run_single_threaded; one runner"},
	{"device", 0, "N", LOADING, I32, AT(device), 0, 1024, "index of the device"},
	{"deadline", 0, "MS", LOADING, MS, AT(deadline_ms), -1, 86400000, "milliseconds of one run; -1: none (default: the broker's)"},
	{"load-deadline", 0, "MS", LOADING, MS, AT(load_deadline_ms), 1, 86400000, "milliseconds until the model is ready"},
	{"memory", 0, "BYTES", LOADING, BYTES, AT(memory_bytes), 1, INT64_MAX, "limit of each worker; suffixes K, M, G"},
	{"explain", 0, NULL, LOADING, FLAG, AT(explain), 0, 0, "name the system call that a killed model made (slower)"},
	{"isolate", 0, "WHAT", LOADING, TEXT, AT(isolate), 0, 0, "request: every run in a fresh fork, which ends with it; or none"},
	{"retries", 0, "N", V(RUN), U32, AT(retries), 0, 1000, "repeat a run whose worker died (default 0)"},
	{"retries", 0, "N", V(BATCH), U32, AT(retries), 0, 1000, "repeat an item whose worker died, at most twice of its own doing (default 16)"},
	{"batch-size", 'b', "N", V(BATCH), U32, AT(batch_size), 1, UINT32_MAX, "rows of a run (default: as the package has it, else 32)"},
	{"max-failures", 0, "N", V(BATCH), U32, AT(max_failures), 1, UINT32_MAX, "stop when more items than that have failed (default: never)"},
	{"shard", 0, "I/N", V(BATCH), TEXT, AT(shard), 0, 0, "only the items of part I, 0 to N - 1: for job arrays"},
	{"resume", 0, NULL, V(BATCH), FLAG, AT(resume), 0, 0, "go on with the batch that is there, if there is one"},
	{"repeat", 0, "N", V(RUN), U32, AT(repeat), 1, UINT32_MAX, "run N times, write the last outputs; for models with state"},
	{"seed", 0, "N", V(RUN), MS, AT(seed), 0, INT64_MAX, "random numbers as after torch.manual_seed(N); N + 1, N + 2, ... with --repeat"},
	{"count", 'n', "N", V(BENCH), U32, AT(runs), 1, UINT32_MAX, "runs that are measured (default: 2000, or 10 seconds of them)"},
	{"clients", 'c', "N", V(BENCH), U32, AT(clients), 1, 256, "threads that run at the same time (default 1)"},
	{"count", 'n', "N", V(TOP), U32, AT(runs), 1, UINT32_MAX, "look N times, a second apart (default: until Ctrl-C)"},
	{"socket", 0, "S", LOADING | V(INSPECT) | V(DOCTOR) | V(PS) | V(METRICS) | V(TOP), TEXT, AT(socket), 0, 0, "a running broker (default $PT2BOX_SOCKET, else a private one)"},
	{"metadata", 0, NULL, V(INSPECT), FLAG, AT(metadata), 0, 0, "only names and metadata: nothing else of the package is read"},
	{"json", 0, NULL, V(INSPECT) | V(BENCH) | V(DOCTOR) | V(PS), FLAG, AT(json), 0, 0, "print JSON"},
	{"help", 'h', NULL, ~0u, FLAG, AT(help), 0, 0, "this text"},
};

static const struct {
	const char *name, *args, *what;
	bool package;
} verbs[CMD_N_VERBS] = {
	[CMD_RUN] = {"run", "PACKAGE [--input FILE]... [--output FILE] [OPTION]...", "run a model once, confined", true},
	[CMD_INSPECT] = {"inspect", "PACKAGE [OPTION]...", "describe a package without running any of its code", true},
	[CMD_BENCH] = {"bench", "PACKAGE [--input FILE]... [OPTION]...", "measure latency, throughput, start and memory", true},
	[CMD_BATCH] = {"batch", "PACKAGE --input PATH --output DIR [OPTION]...", "run many inputs; nothing is lost, whatever is killed", true},
	[CMD_SERVE] = {"serve", "[OPTION OF pt2boxd]...", "run the broker as a service", false},
	[CMD_DOCTOR] = {"doctor", "[OPTION]...", "what this machine can enforce", false},
	[CMD_PS] = {"ps", "[OPTION]...", "models, workers and memory of a running broker", false},
	[CMD_TOP] = {"top", "[OPTION]...", "models of a running broker, live", false},
	[CMD_METRICS] = {"metrics", "[OPTION]...", "numbers of a running broker, for Prometheus", false},
};

enum cmd_verb cmd_verb_find(const char *name)
{
	enum cmd_verb v = 0;

	while (v < CMD_N_VERBS && strcmp(verbs[v].name, name) != 0)
		v++;
	return v;
}

const char *cmd_verb_name(enum cmd_verb v)
{
	return verbs[v].name;
}

const char *cmd_option_name(size_t i, uint32_t *ret_verbs)
{
	if (i >= N(rows))
		return NULL;
	*ret_verbs = rows[i].verbs;
	return rows[i].name;
}

/* ---- values ---- */

static bool number(const char *text, bool suffix, int64_t min, int64_t max, int64_t *ret)
{
	static const char units[] = "KMG";
	const char *unit;
	long long v;
	char *end;

	errno = 0;
	v = strtoll(text, &end, 10);
	if (errno || end == text || (*text != '-' && (*text < '0' || *text > '9')))
		return false;
	if (suffix && *end && (unit = strchr(units, *end))) {
		if (__builtin_mul_overflow(v, 1ll << (10 * (unit - units + 1)), &v))
			return false;
		end++;
	}
	if (*end || v < min || v > max)
		return false;
	*ret = v;
	return true;
}

static pb_status add_input(struct cmd_options *o, const char *path, struct pt2box_error *err)
{
	const char **more;

	if (o->n_inputs == CMD_INPUTS_MAX)
		return pb_error_set(err, PT2BOX_USAGE, "more than %d input files", CMD_INPUTS_MAX);
	more = reallocarray(o->inputs, o->n_inputs + 1, sizeof(*more));
	if (!more)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	o->inputs = more;
	o->inputs[o->n_inputs++] = path;
	return PT2BOX_OK;
}

static pb_status set(struct cmd_options *o, const struct option_row *r, const char *text, struct pt2box_error *err)
{
	void *field = (char *)o + r->at;
	int64_t v = 0;

	if (r->kind == INPUT)
		return add_input(o, text, err);
	if (r->kind == TEXT) {
		*(const char **)field = text;
	} else if (r->kind == FLAG) {
		*(bool *)field = true;
	} else if (!number(text, r->kind == BYTES, r->min, r->max, &v)) {
		return pb_error_set(err, PT2BOX_USAGE, "--%s %s: not a number from %lld to %lld", r->name, text,
				    (long long)r->min, (long long)r->max);
	} else if (r->kind == MS || r->kind == BYTES) {
		*(int64_t *)field = v;
	} else {
		*(uint32_t *)field = (uint32_t)v;
	}
	return PT2BOX_OK;
}

/* ---- the command line ---- */

static void getopt_tables(enum cmd_verb v, struct option *longs, char *shorts)
{
	size_t n = 0, s = 0;

	shorts[s++] = ':'; /* a missing value is told apart */
	for (size_t i = 0; i < N(rows); i++) {
		if (!(rows[i].verbs & 1u << v))
			continue;
		longs[n++] = (struct option){rows[i].name, rows[i].value ? required_argument : no_argument, NULL, 256 + (int)i};
		if (rows[i].letter) {
			shorts[s++] = rows[i].letter;
			if (rows[i].value)
				shorts[s++] = ':';
		}
	}
	longs[n] = (struct option){0};
	shorts[s] = '\0';
}

static const struct option_row *row_of(enum cmd_verb v, int o)
{
	for (size_t i = 0; i < N(rows); i++)
		if (rows[i].verbs & 1u << v && (o == 256 + (int)i || (o < 256 && o == rows[i].letter)))
			return &rows[i];
	return NULL;
}

static pb_status bad_usage(enum cmd_verb v, const char *what, const char *word, struct pt2box_error *err)
{
	return pb_error_set(err, PT2BOX_USAGE, "%s%s: see pt2box %s --help", what, word, verbs[v].name);
}

static pb_status check(enum cmd_verb v, const struct cmd_options *o, struct pt2box_error *err)
{
	if (verbs[v].package && !o->package)
		return bad_usage(v, "no package is named", "", err);
	if (o->isolate && strcmp(o->isolate, "request") != 0 && strcmp(o->isolate, "none") != 0)
		return bad_usage(v, "--isolate takes request or none, not ", o->isolate, err);
	if (v == CMD_INSPECT && strncmp(o->package, CMD_REPO, strlen(CMD_REPO)) == 0)
		return bad_usage(v, "a model by name cannot be inspected", "", err);
	if (o->package && strncmp(o->package, CMD_REPO, strlen(CMD_REPO)) == 0 && !o->socket)
		return bad_usage(v, "a model by name is a running broker's: --socket S", "", err);
	if (o->single_threaded && o->runners > 1)
		return bad_usage(v, "--single-threaded is for one runner", "", err);
	return PT2BOX_OK;
}

static pb_status parse(enum cmd_verb v, int argc, char **argv, struct cmd_options *ret, struct pt2box_error *err)
{
	struct option longs[N(rows) + 1];
	char shorts[2 * N(rows) + 2];
	pb_status st = PT2BOX_OK;
	int o;

	getopt_tables(v, longs, shorts);
	optind = 0; /* also resets what getopt has in mind */
	opterr = 0;
	while (!st && (o = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		const struct option_row *r = o == ':' || o == '?' ? NULL : row_of(v, o);

		if (r)
			st = set(ret, r, optarg, err);
		else
			st = bad_usage(v, o == ':' ? "a value is missing after " : "there is no option ",
				       argv[optind - 1], err);
		if (ret->help)
			return PT2BOX_OK;
	}
	if (st)
		return st;
	if (optind < argc && verbs[v].package)
		ret->package = argv[optind++];
	if (optind < argc)
		return bad_usage(v, "there is nothing that could be done with ", argv[optind], err);
	return check(v, ret, err);
}

/* At most as many as there may be workers. */
static uint32_t usable_cpus(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return n > 64 ? 64 : (uint32_t)n;
}

pb_status cmd_options_parse(enum cmd_verb v, int argc, char **argv, struct cmd_options *ret, struct pt2box_error *err)
{
	const char *env = getenv("PT2BOX_SOCKET");

	*ret = (struct cmd_options){.runners = 1, .clients = 1, .repeat = 1, .device = -1, .seed = -1};
	if (env && *env)
		ret->socket = env;
	if (v == CMD_BATCH) {
		ret->retries = 16;
		ret->runners = usable_cpus();
	}
	return parse(v, argc, argv, ret, err);
}

void cmd_options_deinit(struct cmd_options *o)
{
	free(o->inputs);
	o->inputs = NULL;
}

/* ---- help ---- */

static void print_option(FILE *f, const struct option_row *r)
{
	char left[64];

	if (r->letter)
		snprintf(left, sizeof(left), "-%c, --%s%s%s", r->letter, r->name, r->value ? " " : "", r->value ? r->value : "");
	else
		snprintf(left, sizeof(left), "    --%s%s%s", r->name, r->value ? " " : "", r->value ? r->value : "");
	fprintf(f, "  %-24s %s\n", left, r->help);
}

void cmd_verb_help(FILE *f, enum cmd_verb v)
{
	fprintf(f, "usage: pt2box %s %s\n%c%s.\n\n", verbs[v].name, verbs[v].args, verbs[v].what[0] - 'a' + 'A',
		verbs[v].what + 1);
	for (size_t i = 0; i < N(rows); i++)
		if (rows[i].verbs & 1u << v && v != CMD_SERVE)
			print_option(f, &rows[i]);
	if (LOADING & 1u << v)
		fputs("\nPACKAGE is a file, or " CMD_REPO "NAME, a model that the broker of --socket offers.\n", f);
	if (v == CMD_BATCH)
		fputs("exit status: 0 all done, 3 some in quarantine, 1 not all were tried; others: nothing was begun\n", f);
}

void cmd_help(FILE *f)
{
	fputs("usage: pt2box VERB [ARGUMENT]...\n"
	      "Runs PyTorch AOTInductor packages (.pt2) in confined processes.\n\n",
	      f);
	for (enum cmd_verb v = 0; v < CMD_N_VERBS; v++)
		fprintf(f, "  %-9s %s\n", verbs[v].name, verbs[v].what);
	fputs("\n  pt2box VERB --help lists the options of a verb; pt2box --version prints the version.\n"
	      "\nexit status: 0, 128 + the number of the signal that ended the command, or\n",
	      f);
#define ROW(name, number, text)                                                                                        \
	if (number != 0 && PT2BOX_##name != PT2BOX_WINDOW)                                                             \
		fprintf(f, "  %2d %-15s %s\n", number, #name, text);
	PT2BOX_STATUS_LIST(ROW)
#undef ROW
}
