/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: what is set, what is refused, and that --help and the manual page know every option. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cmd/options.h"

#define MAN "docs/pt2box.1"

static pb_status parse(const char *line, struct cmd_options *o, struct pt2box_error *e)
{
	static char copy[1024];
	char *argv[64], *save = NULL;
	int argc = 0;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	return cmd_options_parse(cmd_verb_find(argv[0]), argc, argv, o, e);
}

static void has_defaults(void **state)
{
	struct cmd_options o;

	(void)state;
	unsetenv("PT2BOX_SOCKET");
	assert_int_equal(parse("run m.pt2", &o, NULL), 0);
	assert_string_equal(o.package, "m.pt2");
	assert_int_equal(o.n_inputs, 0);
	assert_int_equal(o.runners, 1);
	assert_int_equal(o.threads, 0);
	assert_int_equal(o.repeat, 1);
	assert_int_equal(o.device, -1);
	assert_int_equal(o.deadline_ms, 0);
	assert_null(o.socket);
	cmd_options_deinit(&o);
	setenv("PT2BOX_SOCKET", "/s", 1);
	assert_int_equal(parse("ps", &o, NULL), 0);
	assert_string_equal(o.socket, "/s");
	cmd_options_deinit(&o);
	assert_int_equal(parse("ps --socket /t", &o, NULL), 0);
	assert_string_equal(o.socket, "/t");
	cmd_options_deinit(&o);
	unsetenv("PT2BOX_SOCKET");
}

static void sets_everything(void **state)
{
	struct cmd_options o;

	(void)state;
	assert_int_equal(parse("run --input a.npz m.pt2 -i b.npy --output=o.npz --name x --backend native --profile strict "
			       "--constants c --runners 3 --threads 2 --device 0 --deadline -1 --load-deadline 5 "
			       "--memory 2G --explain --retries 4 --repeat 7 --socket s",
			       &o, NULL),
			 0);
	assert_int_equal(o.n_inputs, 2);
	assert_string_equal(o.inputs[0], "a.npz");
	assert_string_equal(o.inputs[1], "b.npy");
	assert_string_equal(o.output, "o.npz");
	assert_string_equal(o.name, "x");
	assert_string_equal(o.backend, "native");
	assert_string_equal(o.profile, "strict");
	assert_string_equal(o.constants, "c");
	assert_int_equal(o.runners, 3);
	assert_int_equal(o.threads, 2);
	assert_int_equal(o.device, 0);
	assert_int_equal(o.deadline_ms, -1);
	assert_int_equal(o.load_deadline_ms, 5);
	assert_int_equal(o.memory_bytes, 2ll << 30);
	assert_true(o.explain);
	assert_int_equal(o.retries, 4);
	assert_int_equal(o.repeat, 7);
	cmd_options_deinit(&o);
	assert_int_equal(parse("bench m.pt2 -n 10 -c 4 --json", &o, NULL), 0);
	assert_int_equal(o.runs, 10);
	assert_int_equal(o.clients, 4);
	assert_true(o.json);
	cmd_options_deinit(&o);
	assert_int_equal(parse("run --single-threaded -- -odd.pt2", &o, NULL), 0);
	assert_true(o.single_threaded);
	assert_string_equal(o.package, "-odd.pt2");
	cmd_options_deinit(&o);
}

static void refuses(void **state)
{
	static const char *const lines[] = {
		"run",
		"run a b",
		"run a --frob",
		"run a -x",
		"run a --input",
		"run a --runners 0",
		"run a --runners 65",
		"run a --runners 1x",
		"run a --runners  -1",
		"run a --runners 99999999999999999999",
		"run a --deadline -2",
		"run a --memory 1T",
		"run a --memory 99999999999G",
		"run a --memory 0",
		"run a --memory G",
		"run a --single-threaded --runners 2",
		"run a --json",
		"inspect a --input x",
		"inspect",
		"doctor extra",
		"ps extra",
		"bench a --output x",
		"bench a -n 0",
		"bench a --help=1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct cmd_options o;
		struct pt2box_error e = {.status = PT2BOX_OK};

		if (parse(lines[i], &o, &e) != PT2BOX_USAGE)
			fail_msg("%s", lines[i]);
		assert_true(e.text[0] && !strchr(e.text, '\n'));
		cmd_options_deinit(&o);
	}
}

static void help_comes_first(void **state)
{
	struct cmd_options o;

	(void)state;
	assert_int_equal(parse("run --help", &o, NULL), 0);
	assert_true(o.help);
	cmd_options_deinit(&o);
	assert_int_equal(parse("bench -h --frob", &o, NULL), 0);
	assert_true(o.help);
	cmd_options_deinit(&o);
}

static char *help_of(enum cmd_verb v)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	cmd_verb_help(f, v);
	fclose(f);
	return text;
}

static void help_lists_every_option(void **state)
{
	uint32_t verbs;
	const char *name;

	(void)state;
	for (enum cmd_verb v = 0; v < CMD_N_VERBS; v++) {
		char *text = help_of(v), want[64];

		snprintf(want, sizeof(want), "usage: pt2box %s", cmd_verb_name(v));
		assert_non_null(strstr(text, want));
		for (size_t i = 0; (name = cmd_option_name(i, &verbs)); i++) {
			snprintf(want, sizeof(want), "--%s", name);
			if (v != CMD_SERVE && verbs & 1u << v && !strstr(text, want))
				fail_msg("pt2box %s --help does not know %s", cmd_verb_name(v), want);
		}
		free(text);
	}
}

/* In the manual page "--x-y" is written \-\-x\-y. */
static void man_escape(const char *text, char *dst)
{
	for (; *text; text++) {
		if (*text == '-')
			*dst++ = '\\';
		*dst++ = *text;
	}
	*dst = '\0';
}

static char *read_man(void)
{
	FILE *f = fopen(MAN, "re");
	char *text = calloc(1, 1 << 18);

	assert_non_null(f);
	assert_true(fread(text, 1, (1 << 18) - 1, f) > 0);
	fclose(f);
	return text;
}

static void the_manual_knows_every_option_and_status(void **state)
{
	char *man = read_man(), plain[64], want[128];
	uint32_t verbs;
	const char *name;

	(void)state;
	for (enum cmd_verb v = 0; v < CMD_N_VERBS; v++) {
		snprintf(want, sizeof(want), ".SS pt2box %s", cmd_verb_name(v));
		if (!strstr(man, want))
			fail_msg("%s does not know %s", MAN, want);
	}
	for (size_t i = 0; (name = cmd_option_name(i, &verbs)); i++) {
		snprintf(plain, sizeof(plain), "--%s", name);
		man_escape(plain, want);
		if (!strstr(man, want))
			fail_msg("%s does not know %s", MAN, plain);
	}
#define ROW(status, number, text)                                                                                      \
	snprintf(want, sizeof(want), ".B %d\n%s", number, number ? #status : "");                                      \
	if (PT2BOX_##status != PT2BOX_WINDOW && !strstr(man, want))                                                    \
		fail_msg("%s does not know status %d %s", MAN, number, #status);
	PT2BOX_STATUS_LIST(ROW)
#undef ROW
	free(man);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(has_defaults),
		cmocka_unit_test(sets_everything),
		cmocka_unit_test(refuses),
		cmocka_unit_test(help_comes_first),
		cmocka_unit_test(help_lists_every_option),
		cmocka_unit_test(the_manual_knows_every_option_and_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
