/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pt2box.h - run PyTorch AOTInductor packages (.pt2) in confined processes.
 *
 * The only header a program needs. A connection (struct pt2box) talks to a broker: a running service on a Unix socket,
 * or a private one started for this connection. A model (struct pt2box_model) is one loaded package. Tensors live in
 * memory shared with the model's workers, so that a run copies nothing that is already there.
 *
 * Ownership: whatever a function returns through a ret_ argument belongs to the caller and has a _free or _close.
 * Arguments are borrowed for the duration of the call. Errors: a status and, if asked for, a sentence; @err is written
 * only on failure. Handles may be freed in any order, but a model only when no run of it is under way: a tensor's memory
 * stays until the tensor is freed, whatever became of its model and connection.
 *
 * Threads: a connection and its models may be used by several threads at once, a tensor by one at a time; but it may be an
 * input of several runs at once if the model does not write its inputs. Changes of a model's constants take turns.
 * Connections: a process may have any number, to one broker or each to its own; they share nothing.
 * Fork: a process may fork at any time, also while its threads are in calls. In the child, calls on handles of its parent
 * fail with USAGE, and freeing them frees only the child's records; tensors can still be read. Open a new connection there.
 */
#ifndef PT2BOX_H
#define PT2BOX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PT2BOX_API __attribute__((visibility("default")))
#define PT2BOX_CHECK __attribute__((warn_unused_result))
#else
#define PT2BOX_API
#define PT2BOX_CHECK
#endif

#define PT2BOX_VERSION "0.1.0"
#define PT2BOX_MAX_DIMS 16
#define PT2BOX_QUEUED_RUNS_MAX 4096 /* see pt2box_run_start() */

/**
 * PT2BOX_STATUS_LIST() - every status: X(name, number, meaning)
 *
 * One type in the library, on the wire and as the exit code of the command. Numbers are never reused.
 */
#define PT2BOX_STATUS_LIST(X)                                                                                          \
	X(OK, 0, "success")                                                                                            \
	X(INTERNAL, 1, "a bug in pt2box")                                                                              \
	X(USAGE, 2, "an argument of the call or the command line is wrong")                                            \
	X(SYSTEM, 4, "a system call failed")                                                                           \
	X(NO_MEMORY, 5, "this process is out of memory")                                                               \
	X(IO, 6, "a file could not be read or written")                                                                \
	X(PROTOCOL, 7, "a peer sent something that the protocol does not allow")                                       \
	X(BROKER_LOST, 8, "the broker is gone")                                                                        \
	X(LIMIT, 9, "a limit or quota was reached")                                                                    \
	X(DENIED, 10, "not permitted")                                                                                 \
	X(NOT_FOUND, 11, "no such model, name or object")                                                              \
	X(BAD_FD, 12, "a file descriptor is not of the kind that is needed")                                           \
	X(BAD_TENSOR, 13, "a tensor does not fit the package: count, dtype, shape, stride or extent")                  \
	X(CANCELLED, 14, "the run was cancelled")                                                                      \
	X(LAYER_MISSING, 15, "the kernel lacks a confinement layer that the policy requires")                          \
	X(UNSUPPORTED, 16, "the package needs an operator, device or CPU feature that is not here")                    \
	X(PKG_REJECTED, 20, "the package is malformed or not acceptable")                                              \
	X(MODEL_KILLED, 21, "the model made a system call that its policy forbids")                                    \
	X(MODEL_CRASHED, 22, "the model died by a signal")                                                             \
	X(MODEL_EXITED, 23, "the model ended its process")                                                             \
	X(MODEL_TIMEOUT, 24, "the model overran its deadline")                                                         \
	X(MODEL_OOM, 25, "the model ran out of its memory")                                                            \
	X(MODEL_PROTOCOL, 26, "the model's worker sent something impossible")                                          \
	X(MODEL_ERROR, 27, "the model reported an error")                                                              \
	X(STATE_LOST, 28, "a stateful model lost its state")                                                           \
	X(OP_DENIED, 30, "a fallback operator is not permitted")                                                       \
	X(OP_TIMEOUT, 31, "a fallback operator overran its deadline")                                                  \
	X(OP_CRASHED, 32, "the process that runs fallback operators died")                                             \
	X(WINDOW, 40, "internal: the outputs need a larger window")

enum pt2box_status {
#define PT2BOX_STATUS_ENUM(name, number, text) PT2BOX_##name = number,
	PT2BOX_STATUS_LIST(PT2BOX_STATUS_ENUM)
#undef PT2BOX_STATUS_ENUM
};

/** pt2box_status_name() - "OK", "MODEL_CRASHED", ...; "?" for an unknown number. Static text. */
PT2BOX_API const char *pt2box_status_name(enum pt2box_status status);
/** pt2box_status_text() - one sentence for a status. Static text. */
PT2BOX_API const char *pt2box_status_text(enum pt2box_status status);

/**
 * struct pt2box_error - what went wrong
 * @status:    as returned by the call
 * @sys_errno: errno of the failing system call, 0 if none
 * @signal:    signal that ended the model (MODEL_CRASHED, MODEL_KILLED), else 0
 * @text:      one sentence, UTF-8, no newline
 */
struct pt2box_error {
	enum pt2box_status status;
	int sys_errno;
	int signal;
	char text[480];
};

/** Element types. The numbers are PyTorch's (c10::ScalarType). */
enum pt2box_dtype {
	PT2BOX_UINT8 = 0,
	PT2BOX_INT8 = 1,
	PT2BOX_INT16 = 2,
	PT2BOX_INT32 = 3,
	PT2BOX_INT64 = 4,
	PT2BOX_FLOAT16 = 5,
	PT2BOX_FLOAT32 = 6,
	PT2BOX_FLOAT64 = 7,
	PT2BOX_COMPLEX32 = 8,
	PT2BOX_COMPLEX64 = 9,
	PT2BOX_COMPLEX128 = 10,
	PT2BOX_BOOL = 11,
	PT2BOX_BFLOAT16 = 15,
	PT2BOX_FLOAT8_E5M2 = 23,
	PT2BOX_FLOAT8_E4M3FN = 24,
	PT2BOX_UINT16 = 27,
	PT2BOX_UINT32 = 28,
	PT2BOX_UINT64 = 29
};

/** pt2box_dtype_size() - bytes of one element; 0 for an unknown dtype. */
PT2BOX_API size_t pt2box_dtype_size(int32_t dtype);
/** pt2box_dtype_name() - "float32", ...; "?" if unknown. Static text. */
PT2BOX_API const char *pt2box_dtype_name(int32_t dtype);
/** pt2box_dtype_from_name() - the number for "float32", ...; -1 if unknown. */
PT2BOX_API int32_t pt2box_dtype_from_name(const char *name);

struct pt2box;
struct pt2box_model;
struct pt2box_tensor;
struct pt2box_run;

/**
 * pt2box_open() - connect to a broker
 * @socket_path: Unix socket of a running broker; NULL starts a private broker as a child of this process, with the
 *               same confinement, which ends with the connection or this process
 * @ret:         the connection; pt2box_close()
 * @err:         may be NULL
 *
 * The private broker is the program pt2boxd: in the folder that $PT2BOX_LIBEXEC names, else beside this library
 * (libexec/ or ../libexec/pt2box/), else where it was installed. It has a session of its own, so a Ctrl-C at the terminal
 * does not reach it. It writes to standard error only with $PT2BOX_VERBOSE. A program that waits for all its children
 * will see it end.
 *
 * Return: PT2BOX_OK; BROKER_LOST, nobody listens; NOT_FOUND, no pt2boxd; DENIED; SYSTEM; LAYER_MISSING.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_open(const char *socket_path, struct pt2box **ret,
						       struct pt2box_error *err);
/**
 * pt2box_close() - close a connection: its models are unloaded, a private broker has ended on return. Accepts NULL
 *
 * No other thread may be in a call on it. Handles of models must still be freed, and runs finished: they end CANCELLED.
 */
PT2BOX_API void pt2box_close(struct pt2box *c);

/**
 * pt2box_doctor() - what this machine can enforce, and what the broker found in force
 * @ret_json: JSON text; pt2box_free_text()
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_doctor(struct pt2box *c, char **ret_json, struct pt2box_error *err);
/**
 * pt2box_ps() - models, workers, lanes and memory of this tenant, as JSON; what it holds and may hold under "tenants". An
 * operator (root, the broker's user, a tenant that the configuration says is one) sees those of all. Each model has "health"
 * (healthy, degraded, quarantined), "cause" (null, or status, signal, age_ms and text of the last death), "deaths" by status and
 * "runs". pt2box_free_text().
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_ps(struct pt2box *c, char **ret_json, struct pt2box_error *err);
PT2BOX_API void pt2box_free_text(char *text);

/**
 * struct pt2box_load_options - how to load; initialise with PT2BOX_LOAD_OPTIONS_INIT
 * @struct_size:      sizeof(struct pt2box_load_options)
 * @model_name:       model inside the package; NULL: "model"
 * @backend:          "auto", "native" or "torch"; NULL: "auto". torch: PyTorch's own library, as the broker found it when it
 *                    started ($PT2BOX_TORCH, else a Python's on the PATH); UNSUPPORTED if it did not. auto: native if that
 *                    has all that the package needs, else torch
 * @profile:          "default" or "strict"; NULL: "default"
 * @runners:          workers, 1 to 64
 * @threads:          threads of each worker; 0: 1
 * @single_threaded:  as PyTorch's run_single_threaded; needs runners == 1
 * @device_index:     -1: none
 * @load_deadline_ms: milliseconds from spawn until the model is ready; 0: the broker's default
 * @run_deadline_ms:  milliseconds of one run; 0: the broker's default, -1: none
 * @explain:          name the system call of a model that is killed by its filter (slower)
 * @memory_bytes:     limit of each worker; 0: the broker's default, which is also the most that a served broker gives
 * @constants_fd:     a safetensors file with all constants, by fully qualified name, of a package that has none inside, or
 *                    instead of its own; -1: none. Borrowed
 * @ops_fd:           operators that the package calls by name and the backend does not have: a plugin (pt2box_op.h), a library
 *                    that registers them with PyTorch, where that is installed, or source text in Python
 *                    (python/pt2box/ops.py); -1: none. A regular file or memfd, borrowed. It runs in a process of its own, confined as the
 *                    model is; a run whose call fails there ends with OP_CRASHED or OP_TIMEOUT and can be repeated
 * @isolate:          PT2BOX_ISOLATE_REQUEST: every run is served by a fresh fork of the loaded model, which ends with it,
 *                    so that nothing the model keeps, buffers that it mutates included, is seen by another run; a package that
 *                    takes its worker over can serve a second one before the broker, which looks every 20 ms, ends it. Costs a
 *                    fork a run, some 0.5 ms, hidden behind other runs where there are several runners. No sessions
 */
struct pt2box_load_options {
	size_t struct_size;
	const char *model_name;
	const char *backend;
	const char *profile;
	uint32_t runners;
	uint32_t threads;
	int32_t single_threaded;
	int32_t device_index;
	int64_t load_deadline_ms;
	int64_t run_deadline_ms;
	int32_t explain;
	int32_t constants_fd;
	uint64_t memory_bytes;
	int32_t ops_fd;
	int32_t isolate;
};
#define PT2BOX_LOAD_OPTIONS_INIT {sizeof(struct pt2box_load_options), NULL, NULL, NULL, 1, 0, 0, -1, 0, 0, 0, -1, 0, -1, 0}

/** Of struct pt2box_load_options.isolate. */
enum pt2box_isolate { PT2BOX_ISOLATE_NONE = 0, PT2BOX_ISOLATE_REQUEST = 1 };

/**
 * pt2box_load_path() - load a package from a file
 * @c:    connection
 * @path: file that this process can read; the broker never sees the path
 * @opt:  NULL: defaults
 * @ret:  the model; pt2box_unload()
 *
 * Blocks until a worker is ready or the load deadline has passed.
 *
 * Return: PT2BOX_OK; IO; PKG_REJECTED with the reason; UNSUPPORTED, an operator or CPU feature is missing; NOT_FOUND, no
 * model of that name (the text lists the names); MODEL_* if the package's own code failed while it loaded.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_load_path(struct pt2box *c, const char *path,
							    const struct pt2box_load_options *opt,
							    struct pt2box_model **ret, struct pt2box_error *err);
/** pt2box_load_fd() - the same from an open regular file or memfd (borrowed). */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_load_fd(struct pt2box *c, int fd,
							  const struct pt2box_load_options *opt,
							  struct pt2box_model **ret, struct pt2box_error *err);
/** pt2box_load_memory() - the same from size_bytes bytes in memory. */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_load_memory(struct pt2box *c, const void *data, size_t size_bytes,
							      const struct pt2box_load_options *opt,
							      struct pt2box_model **ret, struct pt2box_error *err);
/**
 * pt2box_load_named() - load a model that the broker's operator offers by name
 * @name: as in the broker's configuration
 * @opt:  NULL: defaults. What the configuration says of the model overrides them
 *
 * Return: as pt2box_load_path(); NOT_FOUND: there is no such model, or it is not for this tenant, in the same words; LIMIT,
 * the text names the limit; DENIED.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_load_named(struct pt2box *c, const char *name,
							     const struct pt2box_load_options *opt,
							     struct pt2box_model **ret, struct pt2box_error *err);
/** pt2box_unload() - end the model's workers and free the handle. Accepts NULL. Tensors of it stay valid. */
PT2BOX_API void pt2box_unload(struct pt2box_model *m);

/**
 * pt2box_inspect_fd() - describe a package without running any of its code
 * @model_name: NULL: "model"
 * @ret_json:   pt2box_free_text()
 *
 * A JSON object. All text in it is the package author's. Keys:
 *	model, models, device	this model's name, all names in the package, "cpu"
 *	state			"inspected" or "loaded"
 *	backend			of a loaded model the one that it has, "native" or "torch"; else "native" if every function
 *				it imports is there, or null
 *	n_inputs, n_outputs, stateful
 *	run_deadline_ms, start_us	of a loaded model: deadline in force, microseconds that loading took
 *	inputs			null if the package does not say; else a list of
 *				{name, dtype, dims: null or [{min, max (null: unbounded), stride (null: follows)}]}
 *	call_spec		{in: {text, tree}, out: {text, tree}}: text as in the package or null, tree null or: a number,
 *				the index of a flat tensor; {"tuple": [...]}; {"list": [...]}; {"dict": [[key, node]...]};
 *				{"node": type, "context": ..., "children": [...]}. "in" is (args, kwargs)
 *	metadata		object of strings
 *	constants		{source, bytes, count, list: [{name, fqn, dtype, shape, strides, storage_offset, bytes, type,
 *				folded}]}
 *	cpu			{isa, needs: [feature...], openmp, openmp_threads}
 *	code			{bytes, sha256, constructors, minimal_arrayref}
 *	package_sha256
 *	import_counts		{native, proxied, absent, other}
 *	imports			[{name, state: one of these, note: what the operator is and what would provide it}]
 *	extern_nodes		calls of operators by name: [{operator, state: "native" or "absent", python: only Python has it,
 *				arguments: [{name, kind}], results: [kind...]}]
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_inspect_fd(struct pt2box *c, int fd, const char *model_name,
							     char **ret_json, struct pt2box_error *err);
/**
 * pt2box_inspect_metadata_fd() - names and metadata of a package, without looking at anything else of it
 * @model_name: NULL: "model"
 * @ret_json:   {model, models: [name...], device, metadata: {key: text}}; pt2box_free_text()
 *
 * Source: AOTIModelPackageLoader::load_metadata_from_package, torch 2.13.0.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_inspect_metadata_fd(struct pt2box *c, int fd, const char *model_name,
								      char **ret_json, struct pt2box_error *err);
/** pt2box_model_describe() - the text of pt2box_inspect_fd() for a loaded model, with its state. pt2box_free_text(). */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_model_describe(struct pt2box_model *m, char **ret_json,
								 struct pt2box_error *err);
/** Number of inputs and outputs of the model. */
PT2BOX_API size_t pt2box_model_n_inputs(const struct pt2box_model *m);
PT2BOX_API size_t pt2box_model_n_outputs(const struct pt2box_model *m);
/** pt2box_model_input_dtype() - dtype of input i as the package declares it; -1 if it does not say. */
PT2BOX_API int32_t pt2box_model_input_dtype(const struct pt2box_model *m, size_t i);
/** pt2box_model_call_spec() - pytree specs, JSON text as in the package, "" if it has none; borrowed from the model. */
PT2BOX_API void pt2box_model_call_spec(const struct pt2box_model *m, const char **ret_in, const char **ret_out);
/** pt2box_model_is_stateful() - the model mutates its buffers: they survive runs, not crashes (STATE_LOST). */
PT2BOX_API int pt2box_model_is_stateful(const struct pt2box_model *m);

/**
 * struct pt2box_tensor_info - what a tensor is
 * @data:    element 0
 * @dtype:   enum pt2box_dtype
 * @ndim:    0 to PT2BOX_MAX_DIMS
 * @sizes:   elements per dimension
 * @strides: in elements
 * @readonly: 1: a large output, mapped where the worker wrote it: a store through @data is a SIGSEGV. An honest model
 *            never writes it again; a hostile one can, so copy what is checked before it is used
 * @numel:   product of sizes
 */
struct pt2box_tensor_info {
	void *data;
	int32_t dtype;
	int32_t ndim;
	int32_t readonly;
	int64_t numel;
	int64_t sizes[PT2BOX_MAX_DIMS];
	int64_t strides[PT2BOX_MAX_DIMS];
};

/**
 * pt2box_tensor_alloc() - a contiguous tensor in the model's lane: inputs made here are never copied
 * @sizes: ndim entries; may be NULL when ndim is 0
 * @ret:   uninitialised contents; pt2box_tensor_free()
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_tensor_alloc(struct pt2box_model *m, int32_t dtype, int32_t ndim,
							       const int64_t *sizes, struct pt2box_tensor **ret,
							       struct pt2box_error *err);
/**
 * pt2box_tensor_lend() - a tensor over the caller's memory
 * @strides: elements, >= 0; NULL: contiguous
 * @data:    element 0; must stay valid until the tensor is freed. A run copies the elements, and nothing between them,
 *           into the lane, in the strides that the package was compiled for: any strides will do
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_tensor_lend(int32_t dtype, int32_t ndim, const int64_t *sizes,
							      const int64_t *strides, void *data,
							      struct pt2box_tensor **ret, struct pt2box_error *err);
/** pt2box_tensor_protect() - what a model writes into this tensor as its input is not written back: it becomes readonly. */
PT2BOX_API void pt2box_tensor_protect(struct pt2box_tensor *t);
/** pt2box_tensor_get_info() - borrow the description, not to be changed; valid until the tensor is freed. */
PT2BOX_API const struct pt2box_tensor_info *pt2box_tensor_get_info(const struct pt2box_tensor *t);
/**
 * pt2box_tensor_input() - which input of its run an output is a view of, as in "return x[1:]"
 * @t:                an output
 * @ret_index:        the input
 * @ret_offset_bytes: from element 0 of that input to element 0 of @t
 *
 * With the sizes and strides of @t, its elements can be found in the input's own memory: what was lent to the run was copied, and
 * @t is of that copy. Said only of inputs without holes that have the strides the package was compiled for.
 *
 * Return: 1, or 0: of none, or it cannot be said.
 */
PT2BOX_API int pt2box_tensor_input(const struct pt2box_tensor *t, size_t *ret_index, int64_t *ret_offset_bytes);
/** pt2box_tensor_free() - release a tensor, and the lane memory it holds. Accepts NULL. */
PT2BOX_API void pt2box_tensor_free(struct pt2box_tensor *t);

/**
 * struct pt2box_run_options - one run; initialise with PT2BOX_RUN_OPTIONS_INIT
 * @deadline_ms: wait at most this long from the call on, milliseconds, then end the run with MODEL_TIMEOUT; 0 or -1: no
 *               limit of this run's own. The model's deadline, kept by the broker, holds in either case
 * @retries:     times the run may be repeated after its worker died (MODEL_CRASHED, _KILLED, _EXITED, _OOM, _TIMEOUT by the
 *               model's deadline); inputs are intact. Once two workers have died of it (signal, filter, deadline, memory) it
 *               is not tried again, however many are left: only workers killed from outside, by SIGKILL, do not count. Never
 *               done for a model with state: that is STATE_LOST
 * @interrupted: NULL, or called with @arg about ten times a second by the thread that waits in pt2box_run(); not 0: the run
 *               is cancelled, and CANCELLED returned even if it has just ended. Not used by pt2box_run_start()
 * @seed:        NULL, and no two runs draw the same random numbers; or borrowed for the call: the run draws what it would
 *               after torch.manual_seed() with this number
 */
struct pt2box_run_options {
	size_t struct_size;
	int64_t deadline_ms;
	uint32_t retries;
	int (*interrupted)(void *arg);
	void *arg;
	const uint64_t *seed;
};
#define PT2BOX_RUN_OPTIONS_INIT {sizeof(struct pt2box_run_options), 0, 0, NULL, NULL, NULL}

/**
 * pt2box_run() - run a model once
 * @in:      n_in tensors, borrowed until return. Outputs of earlier runs may be inputs. What the model writes into an
 *           input is written back on success, except into a readonly one
 * @ret_out: array of pt2box_model_n_outputs() entries, written on success: tensors owned by the caller, NULL for an
 *           output that is None. Outputs that alias each other share memory, those too that are views of one input. An
 *           output that is a view of an input from pt2box_tensor_alloc() shares memory with it, unless that was copied for
 *           its strides or is protected; of a lent input, it is a view of the lane's copy: pt2box_tensor_input() says of
 *           which and where. After a run that wrote it, input and views hold the same
 *
 * Return: PT2BOX_OK; BAD_TENSOR before the model sees anything; MODEL_KILLED, MODEL_CRASHED, MODEL_EXITED,
 * MODEL_TIMEOUT, MODEL_OOM, MODEL_PROTOCOL: the worker is replaced and the model can be called again; OP_CRASHED, OP_TIMEOUT,
 * OP_DENIED: of an operator that the ops process runs, the worker lives on; STATE_LOST; MODEL_ERROR with its message;
 * LIMIT; CANCELLED; BROKER_LOST.
 * Source: AOTIModelPackageLoader::run, torch 2.13.0.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_run(struct pt2box_model *m, struct pt2box_tensor *const *in,
						      size_t n_in, const struct pt2box_run_options *opt,
						      struct pt2box_tensor **ret_out, struct pt2box_error *err);

/**
 * pt2box_boxed_run() - run, and free the inputs as soon as they are not needed
 * @in: n_in tensors that the call takes, whatever its result: the entries are NULL on return. A tensor over the caller's
 *      memory is freed once its elements are in the lane, before the model starts; one in the lane when the run has ended
 *      Each tensor once. What the model writes into them is written back to nobody
 *
 * Source: AOTIModelPackageLoader::boxed_run, torch 2.13.0.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_boxed_run(struct pt2box_model *m, struct pt2box_tensor **in,
							    size_t n_in, const struct pt2box_run_options *opt,
							    struct pt2box_tensor **ret_out, struct pt2box_error *err);

/**
 * pt2box_run_start() - start a run and return at once
 * @in:  the tensors, not the array, are borrowed until pt2box_run_finish() has returned
 * @ret: pt2box_run_finish() frees it
 *
 * Those beyond the lane's slots wait their turn, at most PT2BOX_QUEUED_RUNS_MAX of a connection: one more is LIMIT, at once. A
 * thread of the library takes the replies. Each run has a descriptor until it is finished.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_run_start(struct pt2box_model *m, struct pt2box_tensor *const *in,
							    size_t n_in, const struct pt2box_run_options *opt,
							    struct pt2box_run **ret, struct pt2box_error *err);
/** pt2box_run_fd() - readable once the run has ended. Borrowed from the run. */
PT2BOX_API int pt2box_run_fd(struct pt2box_run *r);
/** pt2box_run_cancel() - ask that the run ends: at once if it waits, else its worker is killed and replaced. */
PT2BOX_API void pt2box_run_cancel(struct pt2box_run *r);
/**
 * pt2box_run_finish() - wait for the end, take the outputs as pt2box_run() does, free the run
 *
 * Return: as pt2box_run(). USAGE in a forked child: then the run is not freed.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_run_finish(struct pt2box_run *r, struct pt2box_tensor **ret_out,
							     struct pt2box_error *err);

/**
 * pt2box_session_open() - the same model with a state of its own
 * @m:   a model; a handle from this function will not do
 * @ret: used like any model; one worker, freshly forked, serves it alone. pt2box_unload(), before that of @m
 *
 * For stateful models: what runs on @m or on another session change in their buffers is not seen here.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_session_open(struct pt2box_model *m, struct pt2box_model **ret,
							       struct pt2box_error *err);

/*
 * Constants. A model has two buffers of them, as PyTorch's container: runs use the active one. The broker keeps their
 * bytes, once for all workers. A change is atomic: a run sees wholly the old or wholly the new constants; what begins
 * after a change has returned sees the new ones, also on workers that are started later. Runs wait for nothing but each
 * worker's own run in hand. Changes of one model are made one after the other.
 */

/** struct pt2box_constant - a constant by name. @name: fully qualified name, "fc1.weight" */
struct pt2box_constant {
	const char *name;
	struct pt2box_tensor *tensor;
};

enum pt2box_constants_flags {
	PT2BOX_CONSTANTS_INACTIVE = 1,	/* the inactive buffer; what is not given there comes from the buffer as it is, else from
					 * the active one */
	PT2BOX_CONSTANTS_FULL = 2,	/* every parameter must be given */
	PT2BOX_CONSTANTS_USER_MANAGED = 4, /* strides must be those of the package. The bytes are taken all the same: later
					    * changes of the caller's memory are not seen */
	PT2BOX_CONSTANTS_NAMES = 8,	/* names may also be the package's internal ones, "fc1_weight" */
};

/**
 * pt2box_load_constants() - replace constants
 * @list:  n entries, borrowed. Sizes and dtype must be what the package declares; any strides will do
 * @flags: enum pt2box_constants_flags
 *
 * The bytes are read once. Constants that are not given stay as they are, and so does the state of a stateful model but
 * for the buffers that are given. On failure nothing has changed.
 *
 * Return: PT2BOX_OK; NOT_FOUND, names that the package does not have or that are missing, by name; BAD_TENSOR, another
 * dtype or shape than declared; UNSUPPORTED, the package does not describe its constants; MODEL_*.
 * Source: AOTIModelPackageLoader::load_constants and update_constant_buffer, torch 2.13.0.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_load_constants(struct pt2box_model *m,
								 const struct pt2box_constant *list, size_t n,
								 uint32_t flags, struct pt2box_error *err);
/** pt2box_load_constants_fd() - the same from a safetensors file: a regular file or memfd, borrowed. */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_load_constants_fd(struct pt2box_model *m, int fd, uint32_t flags,
								    struct pt2box_error *err);
/** pt2box_swap_constants() - exchange the buffers. USAGE: the inactive one is empty. */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_swap_constants(struct pt2box_model *m, struct pt2box_error *err);
/** pt2box_free_inactive_constants() - give the memory of the inactive buffer back. OK if it is empty. */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_free_inactive_constants(struct pt2box_model *m,
									  struct pt2box_error *err);
/**
 * pt2box_fold_constants() - compute the folded constants of a buffer now
 * @inactive: 1: of the inactive buffer. USAGE: it is empty
 *
 * Updates do this by themselves. Nothing to do for packages without folded constants.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_fold_constants(struct pt2box_model *m, int inactive,
								 struct pt2box_error *err);
/**
 * pt2box_extract_constants() - the values of the constants now, of a stateful model its state
 * @m:        a model, or a session
 * @ret_list: *ret_n constants by fully qualified name, without the folded ones, readonly; pt2box_free_constants()
 *
 * Each is a copy: it does not change later, and lives on without the model. An empty inactive buffer has none.
 */
PT2BOX_API PT2BOX_CHECK enum pt2box_status pt2box_extract_constants(struct pt2box_model *m, int inactive,
								    struct pt2box_constant **ret_list, size_t *ret_n,
								    struct pt2box_error *err);
/** pt2box_free_constants() - free a list and its tensors. Accepts NULL. */
PT2BOX_API void pt2box_free_constants(struct pt2box_constant *list, size_t n);
/**
 * pt2box_model_constant() - constant i as the package declares it, in the container's order
 * @ret: borrowed texts and numbers, valid until the model is unloaded
 *
 * Return: 1, or 0 past the last one.
 */
struct pt2box_constant_info {
	const char *name; /* internal, "fc1_weight" */
	const char *fqn;  /* "fc1.weight" */
	int32_t dtype;
	int32_t ndim;
	int32_t folded; /* computed by the model itself */
	int32_t type;	/* 0 unknown, 1 parameter, 2 buffer, 3 tensor constant, 4 folded */
	uint64_t bytes; /* of its storage */
	int64_t sizes[PT2BOX_MAX_DIMS];
	int64_t strides[PT2BOX_MAX_DIMS];
};
PT2BOX_API int pt2box_model_constant(const struct pt2box_model *m, size_t i, struct pt2box_constant_info *ret);

#ifdef __cplusplus
}
#endif
#endif
