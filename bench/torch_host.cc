// SPDX-License-Identifier: Apache-2.0
// The yardstick of `make bench`: PyTorch's AOTIModelPackageLoader in a C++ program, and the raw C ABI under it.
//
//	torch_host PACKAGE MODEL_SO THREADS DTYPE:D0xD1..:RAWFILE ...
//
// Prints "first" after one run, then obeys lines on standard input, each answered by one line with the median in ns:
//	loader N	N calls of AOTIModelPackageLoader::run
//	cabi N		N calls of AOTInductorModelContainerRunSingleThreaded
//	peak N		the most bytes that tensors held during one of N calls, beyond inputs and constants
// Tensors are made beforehand, outputs are freed in the timed part.
#include <dlfcn.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/torch.h>

namespace {

uint64_t now_ns()
{
	timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return uint64_t(ts.tv_sec) * 1000000000u + uint64_t(ts.tv_nsec);
}

at::Tensor read_tensor(const std::string &spec)
{
	size_t a = spec.find(':'), b = spec.find(':', a + 1);
	std::string dtype = spec.substr(0, a), dims = spec.substr(a + 1, b - a - 1);
	std::vector<int64_t> sizes;

	for (size_t at = 0; at < dims.size();) {
		size_t end = dims.find('x', at);
		sizes.push_back(std::stoll(dims.substr(at, end - at)));
		at = end == std::string::npos ? dims.size() : end + 1;
	}
	at::Tensor t = at::empty(sizes, dtype == "int64" ? at::kLong : at::kFloat);
	std::ifstream f(spec.substr(b + 1), std::ios::binary);
	f.read(static_cast<char *>(t.data_ptr()), std::streamsize(t.nbytes()));
	if (!f) {
		fprintf(stderr, "torch_host: cannot read %s\n", spec.c_str());
		exit(1);
	}
	return t;
}

uint64_t median(std::vector<uint64_t> &v)
{
	std::sort(v.begin(), v.end());
	return v[v.size() / 2];
}

using Create = int32_t (*)(void **, size_t, const char *, const char *);
using Run = int32_t (*)(void *, AtenTensorHandle *, size_t, AtenTensorHandle *, size_t, void *, void *);
using Count = int32_t (*)(void *, size_t *);

// Counts what tensors hold, on top of PyTorch's own allocator: the size is in a cache line before each block.
class Counting final : public c10::Allocator {
	static constexpr size_t kHead = 64;

public:
	static inline int64_t live, most;

	at::DataPtr allocate(size_t n) override
	{
		char *p = static_cast<char *>(c10::alloc_cpu(n + kHead));

		memcpy(p, &n, sizeof(n));
		most = std::max(most, live += int64_t(n));
		return {p + kHead, p + kHead, &free_block, at::Device(at::kCPU)};
	}
	at::DeleterFnPtr raw_deleter() const override
	{
		return &free_block;
	}
	void copy_data(void *dst, const void *src, size_t n) const override
	{
		memcpy(dst, src, n);
	}

private:
	static void free_block(void *at)
	{
		char *p = static_cast<char *>(at) - kHead;
		size_t n;

		memcpy(&n, p, sizeof(n));
		live -= int64_t(n);
		c10::free_cpu(p);
	}
};

// The container itself, without the loader: what every host pays at least.
struct CAbi {
	void *container = nullptr;
	Run run = nullptr;
	size_t n_out = 0;

	explicit CAbi(const char *so)
	{
		void *lib = dlopen(so, RTLD_NOW | RTLD_LOCAL);
		if (!lib)
			return;
		auto create = reinterpret_cast<Create>(dlsym(lib, "AOTInductorModelContainerCreateWithDevice"));
		auto count = reinterpret_cast<Count>(dlsym(lib, "AOTInductorModelContainerGetNumOutputs"));
		if (create(&container, 1, "cpu", nullptr) == 0 && count(container, &n_out) == 0)
			run = reinterpret_cast<Run>(dlsym(lib, "AOTInductorModelContainerRunSingleThreaded"));
	}
	void once(const std::vector<at::Tensor> &in)
	{
		AtenTensorHandle h[16] = {}, out[16] = {};

		for (size_t i = 0; i < in.size(); i++)
			aoti_torch_create_tensor_from_blob_v2(in[i].data_ptr(), in[i].dim(), in[i].sizes().data(),
							      in[i].strides().data(), 0, int32_t(in[i].scalar_type()),
							      0, -1, &h[i], 0, nullptr, 0);
		run(container, h, in.size(), out, n_out, nullptr, nullptr);
		for (size_t i = 0; i < n_out; i++)
			aoti_torch_delete_tensor_object(out[i]);
	}
};

// The operator of tests/plugins/example.c, in this process.
at::Tensor triple(const at::Tensor &x, int64_t k)
{
	at::Tensor in = x.contiguous(), out = at::empty_like(in);
	const float *from = in.const_data_ptr<float>();
	float *to = out.mutable_data_ptr<float>();

	for (int64_t i = 0, n = in.numel(); i < n; i++)
		to[i] = from[i] * 3 + float(k);
	return out;
}

} // namespace

TORCH_LIBRARY(pt2box_test, m)
{
	m.def("triple(Tensor x, int k) -> Tensor");
	m.impl("triple", c10::DispatchKey::CPU, triple);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	at::set_num_threads(atoi(argv[3]));
	torch::inductor::AOTIModelPackageLoader loader(argv[1], "model", false, 1, -1);
	std::vector<at::Tensor> in;
	for (int i = 4; i < argc; i++)
		in.push_back(read_tensor(argv[i]));
	{
		auto out = loader.run(in);
		puts("first");
		fflush(stdout);
	}
	char what[16];
	size_t n;
	CAbi *abi = nullptr;
	while (scanf("%15s %zu", what, &n) == 2) {
		std::vector<uint64_t> t(n);

		if (!strcmp(what, "peak")) {
			static Counting counting;
			at::Allocator *own = c10::GetAllocator(at::kCPU);

			c10::SetAllocator(at::kCPU, &counting, 255);
			for (size_t i = 0; i < n; i++)
				auto out = loader.run(in);
			c10::SetAllocator(at::kCPU, own, 255);
			printf("%lld\n", (long long)Counting::most);
			fflush(stdout);
			continue;
		}
		if (!strcmp(what, "cabi") && !abi)
			abi = new CAbi(argv[2]);
		for (size_t i = 0; i < n; i++) {
			uint64_t begin = now_ns();

			if (!strcmp(what, "loader"))
				auto out = loader.run(in);
			else if (abi->run)
				abi->once(in);
			t[i] = now_ns() - begin;
		}
		printf("%llu\n", (unsigned long long)median(t));
		fflush(stdout);
	}
	return 0;
}
