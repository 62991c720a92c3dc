/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which host a model's operators run in. The client does not say: the ops process, which is confined, looks at its copy of the
 * file and answers which host such a file is for. The broker looks whether this machine has that one.
 */
#include <stdio.h>
#include <string.h>

#include "broker/broker.h"

/* NULL: this machine has it; else why not. */
static const char *lacks(const struct pb_config *c, const char *host)
{
	if (strcmp(host, "torch") == 0)
		return c->torch.path[0] ? NULL : c->torch.text;
	if (strcmp(host, "python") == 0)
		return c->python.path[0] ? NULL : c->python.text;
	return "there is no such host";
}

pb_status pb_ops_host_for(const struct pb_config *c, const struct pb_tenant *t, const char *wants, struct pt2box_error *err)
{
	const char *why = lacks(c, wants);

	if (strcmp(wants, "torch") == 0 && !(t->conf->backends & PB_BACKEND_TORCH))
		return pb_error_set(err, PT2BOX_DENIED, "the operators' library needs PyTorch, which this tenant may not use");

	if (!why)
		return PT2BOX_OK;
	if (strcmp(wants, "torch") == 0)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the operators' library needs PyTorch: %.300s", why);
	if (strcmp(wants, "python") == 0)
		return pb_error_set(err, PT2BOX_UNSUPPORTED,
				    "the operators' file is not a library, so it would have to be Python: %.300s", why);
	return pb_error_set(err, PT2BOX_OP_CRASHED, "the ops process asks for a host that there is not");
}
