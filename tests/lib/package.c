/* SPDX-License-Identifier: Apache-2.0 */
/* See package.h. The texts are those of torch 2.13.0, cut down to what a reader of packages may look for. */
#include "tests/lib/package.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include "client/cmd/array.h"

#define STEM "chostilehostilehostilehostilehostilehostilehostilehos"

static const char wrapper_head[] =
	"#include <torch/csrc/inductor/aoti_include/cpu.h>\n"
	"CACHE_TORCH_DTYPE(float32);\nCACHE_TORCH_DEVICE(cpu);\nCACHE_TORCH_LAYOUT(strided);\n"
	"namespace torch::aot_inductor {\n\n"
	"AOTInductorModel::AOTInductorModel(std::shared_ptr<ConstantMap> constants_map,\n"
	"                                   std::shared_ptr<std::vector<ConstantHandle>> constants_array,\n"
	"                                   const std::string& device_str,\n"
	"                                   std::optional<std::string> cubin_dir)\n"
	"    : AOTInductorModelBase(1,\n"
	"                           1,\n"
	"                           %d,\n"
	"                           device_str,\n"
	"                           std::move(cubin_dir),\n"
	"                           %s) {\n"
	"    inputs_info_[0].name = \"arg0_1\";\n";

static const char wrapper_constant[] =
	"    constants_info_[0].name = \"w\";\n"
	"    constants_info_[0].dtype = cached_torch_dtype_float32;\n"
	"    constants_info_[0].device_type = cached_torch_device_type_cpu;\n"
	"    constants_info_[0].offset = 0;\n"
	"    constants_info_[0].data_size = 4096;\n"
	"    constants_info_[0].from_folded = false;\n"
	"    constants_info_[0].type = static_cast<int32_t>(torch::aot_inductor::ConstantType::Parameter);\n"
	"    constants_info_[0].shape = {1024};\n"
	"    constants_info_[0].stride = {1};\n"
	"    constants_info_[0].layout = static_cast<int32_t>(cached_torch_layout_strided);\n"
	"    constants_info_[0].original_fqn = \"w\";\n";

#define LEAF "{\"type\": null, \"context\": null, \"children_spec\": []}"

static const char wrapper_tail[] =
	"    update_constants_map(std::move(constants_map));\n"
	"    update_constants_array(std::move(constants_array));\n"
	"    in_spec_ = R\"([1, {\"type\": \"builtins.tuple\", \"context\": \"null\", \"children_spec\": [{\"type\": "
	"\"builtins.tuple\", \"context\": \"null\", \"children_spec\": [" LEAF "]}, {\"type\": \"builtins.dict\", "
	"\"context\": \"[]\", \"children_spec\": []}]}])\";\n"
	"    out_spec_ = R\"([1, " LEAF "])\";\n"
	"    outputs_info_[0].name = \"output0\";\n"
	"    this->kernels_ = std::make_unique<AOTInductorModelKernels>();\n"
	"}\n\n"
	"AOTI_NOINLINE static void check_input_0(\n"
	"    AtenTensorHandle* input_handles\n"
	") {\n"
	"    ConstantHandle arg0_1 = ConstantHandle(input_handles[0]);\n"
	"    int32_t arg0_1_dtype;\n"
	"    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(arg0_1, &arg0_1_dtype));\n\n"
	"    int32_t arg0_1_expected_dtype = aoti_torch_dtype_float32();\n"
	"    if (arg0_1_expected_dtype != arg0_1_dtype) {\n"
	"        std::stringstream ss;\n"
	"        ss << \"input_handles[0]: unmatched dtype, \"\n"
	"           << \"expected: \" << arg0_1_expected_dtype << \"(at::kFloat), \"\n"
	"           << \"but got: \" << arg0_1_dtype << \"\\n\";\n"
	"        throw std::runtime_error(std::move(ss).str());\n"
	"    }\n"
	"    auto arg0_1_size = arg0_1.sizes();\n\n"
	"    if (16 != arg0_1_size[0]) {\n"
	"        std::stringstream ss;\n"
	"        ss << \"input_handles[0]: unmatched dim value at 0, \"\n"
	"           << \"expected: 16, \" << \"but got: \" << arg0_1_size[0]\n"
	"           << \"\\n\";\n"
	"        throw std::runtime_error(std::move(ss).str());\n"
	"    }\n"
	"    auto arg0_1_stride = arg0_1.strides();\n\n"
	"    if (1 != arg0_1_stride[0]) {\n"
	"        std::stringstream ss;\n"
	"        ss << \"input_handles[0]: unmatched stride value at 0, \"\n"
	"           << \"expected: 1, \" << \"but got: \" << arg0_1_stride[0]\n"
	"           << \"\\n\";\n"
	"        throw std::runtime_error(std::move(ss).str());\n"
	"    }\n"
	"    int32_t arg0_1_device_type;\n"
	"    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(arg0_1, &arg0_1_device_type));\n"
	"}\n\n"
	"AOTI_NOINLINE static void __check_inputs_outputs(\n"
	"    AtenTensorHandle* input_handles,\n"
	"    AtenTensorHandle* output_handles) {\n"
	"    if (!_check_aoti_runtime_check_inputs_env()){\n"
	"        return;\n"
	"    }\n"
	"    check_input_0(input_handles);\n"
	"}\n\n"
	"void AOTInductorModel::run_impl(\n"
	"    AtenTensorHandle* input_handles,\n"
	"    AtenTensorHandle* output_handles,\n"
	"    DeviceStreamType stream,\n"
	"    AOTIProxyExecutorHandle proxy_executor\n"
	") {\n"
	"    __check_inputs_outputs(input_handles, output_handles);\n"
	"    auto inputs = steal_from_raw_handles_to_raii_handles(input_handles, 1);\n"
	"    auto arg0_1 = std::move(inputs[0]);\n"
	"    output_handles[0] = buf0.release();\n"
	"} // AOTInductorModel::run_impl\n"
	"} // namespace torch::aot_inductor\n\n"
	"// Compile cmd\n"
	"// g++ /build/" STEM ".wrapper.cpp -march=x86-64-v2 -shared -fPIC\n";

static const char metadata[] = "{\"AOTI_DEVICE_KEY\": \"cpu\", \"AOTI_PLATFORM\": \"linux\", \"AOTI_MACHINE\": \"x86_64\", "
			       "\"AOTI_CPU_ISA\": \"INVALID_VEC_ISA\", \"AOTI_COMPUTE_CAPABILITY\": \"\"}";

static char *wrapper_text(const struct test_package *p)
{
	size_t cap = sizeof(wrapper_head) + sizeof(wrapper_constant) + sizeof(wrapper_tail) + 64;
	char *t = malloc(cap);
	int n;

	if (!t)
		return NULL;
	n = snprintf(t, cap, wrapper_head, p->constants ? 1 : 0, p->blob ? "false" : "true");
	snprintf(t + n, cap - (size_t)n, "%s%s", p->constants ? wrapper_constant : "", wrapper_tail);
	return t;
}

/* Add one stored entry; returns whether it worked. Takes @src. */
static bool add(zip_t *z, zip_source_t *src, const char *fmt, const char *model)
{
	char name[512];
	zip_int64_t i;

	snprintf(name, sizeof(name), fmt, model);
	i = src ? zip_file_add(z, name, src, ZIP_FL_ENC_UTF_8) : -1;
	if (i < 0) {
		zip_source_free(src);
		return false;
	}
	return zip_set_file_compression(z, (zip_uint64_t)i, ZIP_CM_STORE, 0) == 0;
}

static bool add_text(zip_t *z, const char *text, const char *fmt, const char *model)
{
	return add(z, zip_source_buffer(z, text, strlen(text), 0), fmt, model);
}

#define FOLDER "pkg/data/aotinductor/%s/"

int test_package_write(const char *path, const struct test_package *p)
{
	const char *model = p->model_name ? p->model_name : "model";
	zip_t *z = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, NULL);
	char *wrapper = wrapper_text(p);
	bool ok = z && wrapper;

	ok = ok && add_text(z, wrapper, FOLDER STEM ".wrapper.cpp", model);
	ok = ok && add_text(z, metadata, FOLDER STEM ".wrapper_metadata.json", model);
	if (p->blob)
		ok = ok && add(z, zip_source_buffer(z, p->blob, p->blob_bytes, 0), FOLDER STEM ".wrapper_weights.blob", model);
	ok = ok && add(z, zip_source_file(z, p->so_path, 0, -1), FOLDER STEM ".wrapper.so", model);
	ok = ok && add_text(z, "pt2", "pkg/archive_format", model);
	ok = ok && add_text(z, "0", "pkg/archive_version", model);
	ok = ok && add_text(z, "6\n", "pkg/.data/version", model);
	ok = ok && add_text(z, "little", "pkg/byteorder", model);
	ok = ok && add_text(z, "0000000000000000000000000000000000000001", "pkg/.data/serialization_id", model);
	if (!ok && z)
		zip_discard(z);
	else if (z && zip_close(z) != 0)
		ok = false;
	free(wrapper);
	if (!ok)
		fprintf(stderr, "cannot write %s from %s\n", path, p->so_path);
	return ok ? 0 : -1;
}

/* ---- npz ---- */

struct test_array *test_npz_first(const char *path)
{
	struct pb_array_file *file = NULL;
	const struct pb_array *from;
	struct test_array *a = NULL;
	struct pt2box_error e;

	if (pb_array_file_open(path, &file, &e) || pb_array_file_count(file) == 0)
		goto out;
	from = pb_array_file_get(file, 0);
	a = calloc(1, sizeof(*a) + from->bytes);
	if (!a)
		goto out;
	a->ndim = from->ndim;
	memcpy(a->shape, from->sizes, sizeof(a->shape));
	a->bytes = from->bytes;
	if (pb_array_file_read(file, 0, a->data, &e)) {
		free(a);
		a = NULL;
	}
out:
	pb_array_file_free(file);
	return a;
}
