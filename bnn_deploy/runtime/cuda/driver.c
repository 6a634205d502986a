/* Finds NVIDIA's driver and its GPU when they are first needed. */
#include "cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

cuda_driver cuda;

/* POSIX lets a pointer to a function be read as one to an object; ISO C has no word for it. */
static int find(void *library, const char *name, void *function) {
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static bnn_status load(cuda_driver *found) {
    static const char NAME[] = "libcuda.so.1";
    void *library = dlopen(NAME, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *reason = dlerror();
        if (reason != NULL && strstr(reason, "cannot open shared object file: No such file") == NULL) {
            return cuda_fail("NVIDIA's driver cannot be loaded (%s); install it again", reason);
        }
        return cuda_fail("%s was not found; install NVIDIA's driver, which Jetson Linux has already", NAME);
    }
    const char *missing = NULL;
#define CUDA_FIND(name, parameters)                                                                                      \
    if (!find(library, #name, &found->name)) {                                                                           \
        missing = #name;                                                                                                 \
    }
    CUDA_FUNCTIONS(CUDA_FIND)
#undef CUDA_FIND
#define CUDA_FIND(name, parameters) (void)find(library, #name, &found->name);
    CUDA_ALTERNATIVES(CUDA_FIND)
#undef CUDA_FIND
    if (found->cuGraphInstantiateWithFlags == NULL && found->cuGraphInstantiate_v2 == NULL &&
        found->cuGraphInstantiate == NULL) {
        missing = "cuGraphInstantiate";
    }
    if (missing != NULL) {
        dlclose(library);
        return cuda_fail("NVIDIA's driver has no %s; update it to one for CUDA 10.2 or newer", missing);
    }
    return BNN_OK;
}

static bnn_status start(void) {
    bnn_status status = CUDA_TRY(cuInit, 0);
    if (status == BNN_OK) {
        status = CUDA_TRY(cuDriverGetVersion, &cuda.version);
    }
    if (status == BNN_OK && cuda.version < CUDA_OLDEST_DRIVER) {
        return cuda_fail("NVIDIA's driver supports CUDA up to %d.%d; update it to one for CUDA 10.2 or newer",
                         cuda.version / 1000, cuda.version % 1000 / 10);
    }
    int count = 0;
    if (status == BNN_OK) {
        status = CUDA_TRY(cuDeviceGetCount, &count);
    }
    if (status == BNN_OK && count == 0) {
        return cuda_fail("NVIDIA's driver shows no GPU; see that CUDA_VISIBLE_DEVICES does not hide it");
    }
    return status == BNN_OK ? CUDA_TRY(cuDeviceGet, &cuda.device, 0) : status;
}

bnn_status cuda_open(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int loaded, started;
    pthread_mutex_lock(&lock);
    bnn_status status = BNN_OK;
    if (!loaded) {
        cuda_driver found = {0};
        status = load(&found);
        if (status == BNN_OK) {
            cuda = found;
            loaded = 1;
        }
    }
    if (loaded && !started) {
        status = start();
        started = status == BNN_OK;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

int32_t cuda_attribute(int attribute) {
    int value;
    return cuda.cuDeviceGetAttribute(&value, attribute, cuda.device) == CUDA_SUCCESS && value >= 0 ? value : -1;
}

bnn_status cuda_instantiate(cuda_executable_graph *executable, cuda_graph graph) {
    if (cuda.cuGraphInstantiateWithFlags != NULL) {
        return CUDA_TRY(cuGraphInstantiateWithFlags, executable, graph, 0);
    }
    cuda_graph_node node;
    if (cuda.cuGraphInstantiate_v2 != NULL) {
        return CUDA_TRY(cuGraphInstantiate_v2, executable, graph, &node, NULL, 0);
    }
    return CUDA_TRY(cuGraphInstantiate, executable, graph, &node, NULL, 0);
}

bnn_status bnn_device(bnn_device_info *info) {
    if (info == NULL) {
        return BNN_ERROR_ARGUMENT;
    }
    bnn_status status = cuda_open();
    if (status != BNN_OK) {
        return status;
    }
    memset(info, 0, sizeof *info);
    size_t bytes;
    status = CUDA_TRY(cuDeviceGetName, info->name, (int)sizeof info->name - 1, cuda.device);
    if (status != BNN_OK) {
        return status;
    }
    int32_t major = cuda_attribute(CUDA_ATTRIBUTE_CAPABILITY_MAJOR), minor = cuda_attribute(CUDA_ATTRIBUTE_CAPABILITY_MINOR);
    info->compute_capability = major < 0 || minor < 0 ? -1 : 10 * major + minor;
    info->multiprocessors = cuda_attribute(CUDA_ATTRIBUTE_MULTIPROCESSORS);
    info->khz = cuda_attribute(CUDA_ATTRIBUTE_KHZ);
    info->memory_khz = cuda_attribute(CUDA_ATTRIBUTE_MEMORY_KHZ);
    info->memory_bus_bits = cuda_attribute(CUDA_ATTRIBUTE_MEMORY_BUS_BITS);
    info->memory_bytes = cuda.cuDeviceTotalMem_v2(&bytes, cuda.device) == CUDA_SUCCESS ? (int64_t)bytes : -1;
    info->cuda_version = cuda.version;
    return BNN_OK;
}
