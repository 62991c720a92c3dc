/* SPDX-License-Identifier: Apache-2.0 */
/* pt2box serve: becomes pt2boxd, so that signals reach it and nothing is in between. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cmd/cmd.h"

static bool is_there(char path[PATH_MAX], const char *dir, const char *sub)
{
	int n = snprintf(path, PATH_MAX, "%s%s/pt2boxd", dir, sub);

	return n > 0 && n < PATH_MAX && access(path, X_OK) == 0;
}

/* Where the library looks too. */
static bool find_broker(char path[PATH_MAX])
{
	const char *env = secure_getenv("PT2BOX_LIBEXEC");
	char dir[PATH_MAX];
	char *slash;

	if (env && *env)
		return is_there(path, env, "");
	slash = realpath("/proc/self/exe", dir) ? strrchr(dir, '/') : NULL;
	if (slash) {
		*slash = '\0';
		if (is_there(path, dir, "/libexec") || is_there(path, dir, "/../libexec/pt2box"))
			return true;
	}
	return is_there(path, PB_LIBEXEC_DIR, "");
}

pb_status cmd_serve(int argc, char **argv, struct pt2box_error *err)
{
	char path[PATH_MAX];

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			cmd_verb_help(stdout, CMD_SERVE);
			argv[i] = "--help";
		}
	if (!find_broker(path))
		return pb_error_set(err, PT2BOX_NOT_FOUND, "the program pt2boxd is not there: install pt2box, or set PT2BOX_LIBEXEC");
	fflush(stdout);
	argv[0] = "pt2boxd";
	execv(path, argv);
	return pb_error_set(err, PT2BOX_SYSTEM, "%s cannot be started: %s", path, strerror(errno));
}
