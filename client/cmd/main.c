/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box, the command. An error is one line on stderr, "pt2box: STATUS: sentence", and the status is the exit code.
 * Signals keep their default action: whatever runs for this process ends with it, and an output file has no name yet.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/cmd/cmd.h"

static pb_status dispatch(enum cmd_verb v, int argc, char **argv, struct pt2box_error *err)
{
	struct cmd_options o = {0};
	pb_status st;

	if (v == CMD_SERVE)
		return cmd_serve(argc, argv, err);
	st = cmd_options_parse(v, argc, argv, &o, err);
	if (!st && o.help)
		cmd_verb_help(stdout, v);
	else if (!st)
		st = v == CMD_RUN	 ? cmd_run(&o, err)
		     : v == CMD_INSPECT ? cmd_inspect(&o, err)
		     : v == CMD_BENCH	 ? cmd_bench(&o, err)
		     : v == CMD_BATCH	 ? cmd_batch(&o, err)
		     : v == CMD_DOCTOR	 ? cmd_doctor(&o, err)
		     : v == CMD_PS	 ? cmd_ps(&o, err)
		     : v == CMD_TOP	 ? cmd_top(&o, err)
					 : cmd_metrics(&o, err);
	cmd_options_deinit(&o);
	return st;
}

static pb_status run(int argc, char **argv, struct pt2box_error *err)
{
	enum cmd_verb v;

	if (argc < 2)
		return pb_error_set(err, PT2BOX_USAGE, "a verb is missing: see pt2box --help");
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		cmd_help(stdout);
		return PT2BOX_OK;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("pt2box " PT2BOX_VERSION);
		return PT2BOX_OK;
	}
	v = cmd_verb_find(argv[1]);
	if (v == CMD_N_VERBS)
		return pb_error_set(err, PT2BOX_USAGE, "there is no verb %s: see pt2box --help", argv[1]);
	return dispatch(v, argc - 1, argv + 1, err);
}

int main(int argc, char **argv)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	pb_status st = run(argc, argv, &e);

	if (!st && (fflush(stdout) != 0 || ferror(stdout)))
		st = pb_error_set(&e, PT2BOX_IO, "standard output cannot be written: %s", strerror(errno));
	if (st && e.text[0])
		fprintf(stderr, "pt2box: %s: %s\n", pt2box_status_name(st), e.text);
	return (int)st;
}
