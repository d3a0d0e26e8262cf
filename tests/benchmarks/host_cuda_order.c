/* A libcuda that is no GPU: the two devices of host_nvml.c, the second one first, as CUDA numbers the fastest first. */
#include <string.h>

int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device ? "a card" : "Orin (nvgpu)", (size_t)length);
    return 0;
}
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { (void)device; *bytes = 1; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { (void)attribute; (void)device; *value = 8; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) {
    memset(uuid, 0, 16);
    memcpy(uuid, device ? "\x0d\x5d\x5b\xa0" : "\x1d\x5d\x5b\xa0", 4);
    return 0;
}
