/* A libnvidia-ml that is no GPU: two devices with fixed answers, for the tests of what gapcam reads of NVML.
   Device 0 is a card. Device 1 refuses what the integrated GPU of a Jetson refuses. It has only the older name of the
   function that tells why clocks are held down, as drivers before 535 do. Values and error codes: NVML API Reference. */
#include <stdint.h>
#include <stdio.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3 };
typedef int Status;
typedef struct Device *Handle;
struct Device { int index; };

static struct Device devices[2] = {{0}, {1}};
static int opened = 0;

#define CARD(device) if ((device)->index != 0) return NOT_SUPPORTED

Status nvmlInitWithFlags(unsigned flags) { (void)flags; ++opened; return SUCCESS; }
Status nvmlShutdown(void) { --opened; return SUCCESS; }
int host_nvml_opened(void) { return opened; }
const char *nvmlErrorString(Status status) { return status == NOT_SUPPORTED ? "Not Supported" : "another error"; }
Status nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return SUCCESS; }
Status nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *handle) { *handle = &devices[index]; return SUCCESS; }
Status nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "550.54.15"); return SUCCESS; }
Status nvmlDeviceGetUUID(Handle device, char *text, unsigned size) {
    snprintf(text, size, "GPU-%dd5d5ba0-0000-0000-0000-000000000000", device->index);
    return SUCCESS;
}
Status nvmlDeviceGetName(Handle device, char *text, unsigned size) {
    snprintf(text, size, device->index ? "Orin (nvgpu)" : "a card");
    return SUCCESS;
}
Status nvmlDeviceGetCudaComputeCapability(Handle device, int *major, int *minor) {
    *major = 8, *minor = device->index ? 7 : 9;
    return SUCCESS;
}
Status nvmlDeviceGetTotalEnergyConsumption(Handle device, unsigned long long *millijoules) {
    static unsigned long long total = 1000000;
    CARD(device);
    *millijoules = total += 2500;
    return SUCCESS;
}
Status nvmlDeviceGetPowerUsage(Handle device, unsigned *milliwatts) { CARD(device); *milliwatts = 71500; return SUCCESS; }
Status nvmlDeviceGetEnforcedPowerLimit(Handle device, unsigned *milliwatts) {
    CARD(device);
    *milliwatts = 300000;
    return SUCCESS;
}
Status nvmlDeviceGetTemperature(Handle device, int sensor, unsigned *degrees) {
    CARD(device);
    *degrees = sensor == 0 ? 63 : 0;
    return SUCCESS;
}
Status nvmlDeviceGetClockInfo(Handle device, int domain, unsigned *megahertz) {
    if (device->index && domain) return NOT_SUPPORTED;
    *megahertz = device->index ? 306 : 1000 + 100 * domain;
    return SUCCESS;
}
Status nvmlDeviceGetMaxClockInfo(Handle device, int domain, unsigned *megahertz) {
    CARD(device);
    *megahertz = 2000 + 100 * domain;
    return SUCCESS;
}
Status nvmlDeviceGetUtilizationRates(Handle device, unsigned rates[2]) {
    CARD(device);
    rates[0] = 87, rates[1] = 12;
    return SUCCESS;
}
Status nvmlDeviceGetCurrentClocksThrottleReasons(Handle device, unsigned long long *reasons) {
    CARD(device);
    *reasons = 0x01 | 0x04 | 0x40; /* idle, power cap, hardware thermal slowdown */
    return SUCCESS;
}
Status nvmlDeviceGetMemoryInfo(Handle device, unsigned long long bytes[3]) {
    CARD(device);
    bytes[0] = 24ull << 30, bytes[1] = 20ull << 30, bytes[2] = 4ull << 30;
    return SUCCESS;
}
