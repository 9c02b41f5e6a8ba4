/* SPDX-License-Identifier: MIT
 *
 * fake_classes.m: Apple's four classes, as far as kiln calls them.
 *
 * A model's state, and what moves it:
 *   made -compile-> compiled -load-> loaded -unload-> unloaded
 * A model that was not compiled loads where its folder holds what a compiler wrote.
 */
#import <Foundation/Foundation.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device/fake_int.h"

bool fake_fails(enum fake_point point) {
    const int verdict = fake_verdict(point);
    if (verdict < 0) {
        [NSException raise:@"FakeException"
                    format:@"raised on command by %s", fake_point_name(point)];
    }
    return verdict > 0;
}

struct kiln_npu_runtime *fake_backend(void) {
    static struct kiln_npu_runtime *runtime;
    struct kiln_err err;
    if (!runtime && fake_backend_open(&runtime, &err) != KILN_OK) {
        fake_broken("%s", err.message);
    }
    return runtime;
}

static void explain(NSError **error, long code, NSString *text) {
    *error = [NSError
        errorWithDomain:@"com.apple.appleneuralengine"
                   code:code
               userInfo:[NSDictionary dictionaryWithObject:text forKey:NSLocalizedDescriptionKey]];
}

static void on_command(NSError **error, enum fake_point point) {
    explain(error, 7, [NSString stringWithFormat:@"%s failed on command", fake_point_name(point)]);
}

static void check_call(unsigned qos, id options, NSError **error) {
    if (qos != 21 || ![options isKindOfClass:[NSDictionary class]] || [options count] != 0) {
        fake_broken("called with QoS %u and options %s", qos, [[options description] UTF8String]);
    }
    if (!error || *error) {
        fake_broken("called without a place for an NSError, or with one that is used");
    }
}

/* ---- descriptor ------------------------------------------------------------------------------ */

@interface _ANEInMemoryModelDescriptor : NSObject {
   @public
    NSData *text;
    NSDictionary *weights; /* name -> NSData */
}
+ (id)modelWithMILText:(NSData *)text
               weights:(NSDictionary *)weights
          optionsPlist:(NSData *)options;
@end

static NSDictionary *files_of(NSDictionary *weights) {
    NSMutableDictionary *files = [NSMutableDictionary dictionary];
    NSString *folder = @"@model_path/weights/";
    NSEnumerator *keys = [weights keyEnumerator];
    for (NSString *key = [keys nextObject]; key; key = [keys nextObject]) {
        NSDictionary *file = [weights objectForKey:key];
        NSData *data = [file objectForKey:@"data"];
        if (![key hasPrefix:folder] || [file count] != 2 || ![data isKindOfClass:[NSData class]] ||
            ![[file objectForKey:@"offset"] isEqual:[NSNumber numberWithInt:0]]) {
            fake_broken("a weight is not {offset: 0, data: NSData}: %s", [key UTF8String]);
        }
        [files setObject:data forKey:[key substringFromIndex:[folder length]]];
    }
    return files;
}

@implementation _ANEInMemoryModelDescriptor
+ (id)modelWithMILText:(NSData *)text
               weights:(NSDictionary *)weights
          optionsPlist:(NSData *)options {
    if (![text isKindOfClass:[NSData class]] || ![weights isKindOfClass:[NSDictionary class]] ||
        options) {
        fake_broken("modelWithMILText: text is no NSData, or weights are no NSDictionary");
    }
    if (fake_fails(FAKE_DESCRIPTOR)) {
        return nil;
    }
    _ANEInMemoryModelDescriptor *made = [[[self alloc] init] autorelease];
    made->text = [text copy];
    made->weights = [files_of(weights) retain];
    fake_counted(&fake_counts.descriptors, 1);
    return made;
}
- (void)dealloc {
    [text release];
    [weights release];
    fake_counted(&fake_counts.descriptors, -1);
    [super dealloc];
}
@end

/* ---- surfaces and requests ------------------------------------------------------------------- */

@interface _ANEIOSurfaceObject : NSObject {
   @public
    IOSurfaceRef surface;
}
+ (id)objectWithIOSurface:(IOSurfaceRef)surface;
@end

@implementation _ANEIOSurfaceObject
+ (id)objectWithIOSurface:(IOSurfaceRef)surface {
    if (!surface) {
        fake_broken("objectWithIOSurface: without a surface");
    }
    if (fake_fails(FAKE_WRAPPER)) {
        return nil;
    }
    _ANEIOSurfaceObject *made = [[[self alloc] init] autorelease];
    made->surface = surface;
    fake_surface_wrap(surface);
    fake_counted(&fake_counts.wrappers, 1);
    return made;
}
- (void)dealloc {
    fake_surface_unwrap(surface);
    fake_counted(&fake_counts.wrappers, -1);
    [super dealloc];
}
@end

@interface _ANERequest : NSObject {
   @public
    NSArray *inputs, *outputs;
    long bound;     /* to the model of this number, */
    size_t binding; /* as its program's binding */
}
+ (id)requestWithInputs:(NSArray *)inputs
           inputIndices:(NSArray *)inputIndices
                outputs:(NSArray *)outputs
          outputIndices:(NSArray *)outputIndices
          weightsBuffer:(id)weights
              perfStats:(id)stats
         procedureIndex:(NSNumber *)procedure;
@end

static void check_list(NSArray *wrappers, NSArray *indices) {
    if ([wrappers count] == 0 || [wrappers count] != [indices count]) {
        fake_broken("a request with %zu surfaces and %zu indices", (size_t)[wrappers count],
                    (size_t)[indices count]);
    }
    for (NSUInteger i = 0; i < [wrappers count]; i++) {
        if (![[wrappers objectAtIndex:i] isKindOfClass:[_ANEIOSurfaceObject class]] ||
            [[indices objectAtIndex:i] unsignedLongValue] != i) {
            fake_broken("a request's surface or index %zu is wrong", (size_t)i);
        }
    }
}

@implementation _ANERequest
+ (id)requestWithInputs:(NSArray *)inputs
           inputIndices:(NSArray *)inputIndices
                outputs:(NSArray *)outputs
          outputIndices:(NSArray *)outputIndices
          weightsBuffer:(id)weights
              perfStats:(id)stats
         procedureIndex:(NSNumber *)procedure {
    check_list(inputs, inputIndices);
    check_list(outputs, outputIndices);
    if (weights || stats || ![procedure isEqual:[NSNumber numberWithInt:0]]) {
        fake_broken("a request with a weights buffer, statistics or another procedure");
    }
    if (fake_fails(FAKE_REQUEST)) {
        return nil;
    }
    _ANERequest *made = [[[self alloc] init] autorelease];
    made->inputs = [inputs copy];
    made->outputs = [outputs copy];
    fake_counted(&fake_counts.requests, 1);
    return made;
}
- (void)dealloc {
    [inputs release];
    [outputs release];
    fake_counted(&fake_counts.requests, -1);
    [super dealloc];
}
@end

/* ---- digests --------------------------------------------------------------------------------- */

/* The staging folders of this process. */
static struct folder {
    struct folder *next;
    char path[];
} * folders;
static pthread_mutex_t folders_lock = PTHREAD_MUTEX_INITIALIZER;

static void remember(const char *path) {
    pthread_mutex_lock(&folders_lock);
    struct folder *folder = folders;
    while (folder && strcmp(folder->path, path) != 0) {
        folder = folder->next;
    }
    if (!folder) {
        folder = malloc(sizeof *folder + strlen(path) + 1);
        strcpy(folder->path, path);
        folder->next = folders;
        folders = folder;
    }
    pthread_mutex_unlock(&folders_lock);
}

struct fake_counts fake_count(void) {
    struct fake_counts counts = fake_counts;
    struct stat info;
    counts.folders = 0;
    pthread_mutex_lock(&folders_lock);
    for (const struct folder *folder = folders; folder; folder = folder->next) {
        counts.folders += stat(folder->path, &info) == 0;
    }
    pthread_mutex_unlock(&folders_lock);
    return counts;
}

const char *fake_temporary(void) {
    static char path[4096];
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    snprintf(path, sizeof path, "%s", [NSTemporaryDirectory() UTF8String]);
    [pool drain];
    return path;
}

static NSString *digest_of(NSData *data, uint64_t seed) {
    const unsigned char *bytes = [data bytes];
    uint64_t hash = UINT64_C(14695981039346656037) ^ seed;
    for (NSUInteger i = 0; i < [data length]; i++) {
        hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
    }
    return [NSString stringWithFormat:@"%016llX%016llX%016llX%016llX", (unsigned long long)hash,
                                      (unsigned long long)~hash, (unsigned long long)(hash * 31),
                                      (unsigned long long)(hash * 37)];
}

static NSArray *sorted_names(NSDictionary *weights) {
    return [[weights allKeys] sortedArrayUsingSelector:@selector(compare:)];
}

/* All weights, one behind the other: what a compiler leaves as `data`. */
static NSData *all_weights(NSDictionary *weights) {
    NSMutableData *all = [NSMutableData data];
    NSArray *names = sorted_names(weights);
    for (NSUInteger i = 0; i < [names count]; i++) {
        [all appendData:[weights objectForKey:[names objectAtIndex:i]]];
    }
    return all;
}

/* ---- model ----------------------------------------------------------------------------------- */

enum state { MADE, COMPILED, LOADED, UNLOADED, STUCK /* unloading failed */ };

@interface _ANEInMemoryModel : NSObject {
   @public
    _ANEInMemoryModelDescriptor *descriptor;
    NSString *folder;
    enum state state;
    struct kiln_npu_program *program; /* the simulator's */
    long number;                      /* of the program: from 1 */
}
+ (id)inMemoryModelWithDescriptor:(_ANEInMemoryModelDescriptor *)descriptor;
- (NSString *)hexStringIdentifier;
- (BOOL)compileWithQoS:(unsigned int)qos options:(NSDictionary *)options error:(NSError **)error;
- (BOOL)loadWithQoS:(unsigned int)qos options:(NSDictionary *)options error:(NSError **)error;
- (BOOL)evaluateWithQoS:(unsigned int)qos
                options:(NSDictionary *)options
                request:(_ANERequest *)request
                  error:(NSError **)error;
- (BOOL)unloadWithQoS:(unsigned int)qos error:(NSError **)error;
@end

static NSDictionary *newest_weights; /* of the last compile: what a stale reload computes with */

/* The folder has mode 0700, and in it are the text and the weights, no byte more. */
static void check_staged(_ANEInMemoryModel *model) {
    struct stat info;
    NSFileManager *files = [NSFileManager defaultManager];
    NSString *weights = [model->folder stringByAppendingPathComponent:@"weights"];
    if (stat([model->folder UTF8String], &info) != 0 || !S_ISDIR(info.st_mode) ||
        (info.st_mode & 07777) != 0700) {
        fake_broken("%s is no folder of mode 0700", [model->folder UTF8String]);
    }
    NSData *text =
        [NSData dataWithContentsOfFile:[model->folder stringByAppendingPathComponent:@"model.mil"]];
    if (![text isEqualToData:model->descriptor->text]) {
        fake_broken("model.mil is not the text that was given");
    }
    NSArray *names = sorted_names(model->descriptor->weights);
    if ([[files directoryContentsAtPath:weights] count] != [names count]) {
        fake_broken("%s holds other files than were given", [weights UTF8String]);
    }
    for (NSUInteger i = 0; i < [names count]; i++) {
        NSString *name = [names objectAtIndex:i];
        NSData *staged =
            [NSData dataWithContentsOfFile:[weights stringByAppendingPathComponent:name]];
        if (![staged isEqualToData:[model->descriptor->weights objectForKey:name]]) {
            fake_broken("weights/%s is not what was given", [name UTF8String]);
        }
    }
}

/* Let the simulator compile; its words become the error's. */
static struct kiln_npu_program *simulate(NSData *text, NSDictionary *weights, NSError **error) {
    struct kiln_npu_runtime *runtime = fake_backend();
    struct kiln_npu_program *program = NULL;
    struct kiln_err err;
    NSArray *names = sorted_names(weights);
    const size_t n = [names count];
    struct kiln_npu_weight *files = calloc(n + 1, sizeof *files);
    for (size_t i = 0; i < n; i++) {
        NSData *data = [weights objectForKey:[names objectAtIndex:i]];
        snprintf(files[i].name, sizeof files[i].name, "%s", [[names objectAtIndex:i] UTF8String]);
        files[i].data = (void *)(uintptr_t)[data bytes];
        files[i].bytes = [data length];
    }
    const struct kiln_npu_source source = {
        .label = "fake",
        .text = [text bytes],
        .bytes = [text length],
        .weights = files,
        .n_weights = n,
    };
    if (runtime->ops->compile(runtime, &source, &program, &err) != KILN_OK) {
        explain(error, 1, [NSString stringWithUTF8String:err.message]);
        program = NULL;
    }
    free(files);
    return program;
}

static NSData *plist_of(_ANEInMemoryModel *model) {
    return [digest_of(model->descriptor->text, 0) dataUsingEncoding:NSUTF8StringEncoding];
}

/* What a compiler leaves in the folder. */
static void leave_files(_ANEInMemoryModel *model) {
    NSData *data = fake_files == FAKE_FILES_OTHER_DATA ? [NSData data]
                                                       : all_weights(model->descriptor->weights);
    if (fake_files != FAKE_FILES_NO_PLIST) {
        [plist_of(model) writeToFile:[model->folder stringByAppendingPathComponent:@"net.plist"]
                          atomically:NO];
    }
    if (fake_files != FAKE_FILES_NO_DATA) {
        [data writeToFile:[model->folder stringByAppendingPathComponent:@"data"] atomically:NO];
    }
}

/* A program from what somebody left in the folder; NULL where there is nothing of use. */
static struct kiln_npu_program *from_folder(_ANEInMemoryModel *model, NSError **error) {
    NSData *plist =
        [NSData dataWithContentsOfFile:[model->folder stringByAppendingPathComponent:@"net.plist"]];
    NSData *data =
        [NSData dataWithContentsOfFile:[model->folder stringByAppendingPathComponent:@"data"]];
    if (![plist isEqualToData:plist_of(model)] || fake_reload == FAKE_RELOAD_REFUSED) {
        explain(error, 2, @"the model was not compiled");
        return NULL;
    }
    check_staged(model);
    if (![data isEqualToData:all_weights(model->descriptor->weights)]) {
        fake_broken("data does not hold the weights of the folder");
    }
    NSDictionary *weights =
        fake_reload == FAKE_RELOAD_STALE ? newest_weights : model->descriptor->weights;
    return simulate(model->descriptor->text, weights, error);
}

/* The simulator's surface of a wrapped one, with its bytes. */
static struct kiln_npu_surface *mirror_of(id wrapper) {
    struct kiln_npu_runtime *runtime = fake_backend();
    IOSurfaceRef surface = ((_ANEIOSurfaceObject *)wrapper)->surface;
    struct kiln_err err;
    if (!surface->mirror &&
        runtime->ops->surface_open(runtime, surface->bytes, &surface->mirror, &err) != KILN_OK) {
        fake_broken("%s", err.message);
    }
    return surface->mirror;
}

static void copy_surface(id wrapper, bool back) {
    struct kiln_npu_runtime *runtime = fake_backend();
    struct kiln_npu_surface *mirror = mirror_of(wrapper);
    IOSurfaceRef surface = ((_ANEIOSurfaceObject *)wrapper)->surface;
    struct kiln_err err;
    const bool wrong = back && fake_fails(FAKE_NUMBERS);
    void *bytes = runtime->ops->lock(runtime, mirror, back, &err);
    fake_surface_open(surface);
    if (wrong) {
        memset(surface->base, 0, surface->bytes);
    } else if (bytes && back) {
        memcpy(surface->base, bytes, surface->bytes);
    } else if (bytes) {
        memcpy(bytes, surface->base, surface->bytes);
    }
    fake_surface_shut(surface);
    if (!bytes || runtime->ops->unlock(runtime, mirror, back, &err) != KILN_OK) {
        fake_broken("%s", err.message);
    }
}

static enum kiln_status bind_request(_ANERequest *request, _ANEInMemoryModel *model,
                                     struct kiln_err *err) {
    struct kiln_npu_runtime *runtime = fake_backend();
    const size_t n_in = [request->inputs count], n_out = [request->outputs count];
    struct kiln_npu_surface **surfaces = calloc(n_in + n_out, sizeof *surfaces);
    for (size_t i = 0; i < n_in + n_out; i++) {
        surfaces[i] = mirror_of(i < n_in ? [request->inputs objectAtIndex:i]
                                         : [request->outputs objectAtIndex:i - n_in]);
    }
    const enum kiln_status status = runtime->ops->bind(
        runtime, model->program, surfaces, n_in, surfaces + n_in, n_out, &request->binding, err);
    request->bound = status == KILN_OK ? model->number : 0;
    free(surfaces);
    return status;
}

@implementation _ANEInMemoryModel
+ (id)inMemoryModelWithDescriptor:(_ANEInMemoryModelDescriptor *)descriptor {
    if (![descriptor isKindOfClass:[_ANEInMemoryModelDescriptor class]]) {
        fake_broken("inMemoryModelWithDescriptor: without a descriptor");
    }
    if (fake_fails(FAKE_MODEL)) {
        return nil;
    }
    _ANEInMemoryModel *made = [[[self alloc] init] autorelease];
    made->descriptor = [descriptor retain];
    fake_counted(&fake_counts.models, 1);
    return made;
}

- (NSString *)hexStringIdentifier {
    if (fake_fails(FAKE_DIGEST)) {
        return nil;
    }
    NSString *digest = [NSString stringWithFormat:@"%@_%@_%@", digest_of(descriptor->text, 1),
                                                  digest_of(nil, (uint64_t)getpid()),
                                                  digest_of(all_weights(descriptor->weights), 2)];
    [folder release];
    folder = [[NSTemporaryDirectory() stringByAppendingPathComponent:digest] retain];
    remember([folder UTF8String]);
    if (fake_fails(FAKE_STAGING)) {
        [[NSData data] writeToFile:folder atomically:NO];
    }
    return digest;
}

- (BOOL)compileWithQoS:(unsigned int)qos options:(NSDictionary *)options error:(NSError **)error {
    check_call(qos, options, error);
    if (state != MADE || !folder) {
        fake_broken("compile: twice, or before hexStringIdentifier");
    }
    check_staged(self);
    if (fake_counts.compiles >= (long)fake_compile_limit || fake_fails(FAKE_COMPILE_SILENT)) {
        return NO;
    }
    if (fake_fails(FAKE_COMPILE)) {
        on_command(error, FAKE_COMPILE);
        return NO;
    }
    program = simulate(descriptor->text, descriptor->weights, error);
    if (!program) {
        return NO;
    }
    leave_files(self);
    [newest_weights release];
    newest_weights = [descriptor->weights retain];
    fake_counted(&fake_counts.compiles, 1);
    state = COMPILED;
    return YES;
}

- (BOOL)loadWithQoS:(unsigned int)qos options:(NSDictionary *)options error:(NSError **)error {
    struct kiln_npu_runtime *runtime = fake_backend();
    struct kiln_err err;
    check_call(qos, options, error);
    if ((state != MADE && state != COMPILED) || !folder) {
        fake_broken("load: of a model that is loaded or was unloaded");
    }
    if (fake_fails(FAKE_LOAD)) {
        on_command(error, FAKE_LOAD);
        return NO;
    }
    if (fake_counts.loaded >= (long)fake_load_limit) {
        explain(error, 0x50004, @"no room for another program");
        return NO;
    }
    if (state == MADE) {
        program = from_folder(self, error);
    }
    if (!program) {
        return NO;
    }
    if (runtime->ops->load(runtime, program, &err) != KILN_OK) {
        explain(error, 3, [NSString stringWithUTF8String:err.message]);
        return NO;
    }
    fake_counted(&fake_counts.loads, 1);
    number = fake_counts.loads;
    fake_counted(&fake_counts.loaded, 1);
    state = LOADED;
    return YES;
}

- (BOOL)evaluateWithQoS:(unsigned int)qos
                options:(NSDictionary *)options
                request:(_ANERequest *)request
                  error:(NSError **)error {
    struct kiln_npu_runtime *runtime = fake_backend();
    struct kiln_err err;
    check_call(qos < 64 ? 21 : qos, options, error);
    if (state != LOADED || ![request isKindOfClass:[_ANERequest class]]) {
        fake_broken("evaluate: a model that is not loaded, or without a request");
    }
    if (fake_fails(FAKE_EVALUATE)) {
        on_command(error, FAKE_EVALUATE);
        return NO;
    }
    for (NSUInteger i = 0; i < [request->inputs count]; i++) {
        copy_surface([request->inputs objectAtIndex:i], false);
    }
    enum kiln_status status =
        request->bound == number ? KILN_OK : bind_request(request, self, &err);
    if (status == KILN_OK) {
        status = runtime->ops->evaluate(runtime, program, request->binding, &err);
    }
    if (status != KILN_OK) {
        explain(error, 0x1d, [NSString stringWithUTF8String:err.message]);
        return NO;
    }
    for (NSUInteger i = 0; i < [request->outputs count]; i++) {
        copy_surface([request->outputs objectAtIndex:i], true);
    }
    fake_counted(&fake_counts.evaluations, 1);
    return YES;
}

- (BOOL)unloadWithQoS:(unsigned int)qos error:(NSError **)error {
    check_call(qos, [NSDictionary dictionary], error);
    if (state != LOADED || ![[NSFileManager defaultManager] fileExistsAtPath:folder]) {
        fake_broken("unload: a model that is not loaded, or whose folder is gone");
    }
    state = STUCK;
    fake_counted(&fake_counts.unloads, 1);
    if (fake_fails(FAKE_UNLOAD)) {
        on_command(error, FAKE_UNLOAD);
        return NO;
    }
    fake_counted(&fake_counts.loaded, -1);
    state = UNLOADED;
    return YES;
}

- (void)dealloc {
    struct kiln_npu_runtime *runtime = fake_backend();
    if (state == LOADED) {
        fake_broken("a loaded model is released");
    }
    if (program) {
        runtime->ops->release(runtime, program);
    }
    if (folder) {
        unlink([folder UTF8String]); /* the file of "staging"; fails for a folder */
    }
    [descriptor release];
    [folder release];
    fake_counted(&fake_counts.models, -1);
    [super dealloc];
}
@end

/* ---- chains ---------------------------------------------------------------------------------- */

/* Holds an object: a buffer its wrapper, a set its buffer, a request its set. */
@interface FakeHolder : NSObject {
   @public
    id first, second;
}
@end
@implementation FakeHolder
+ (id)holding:(id)first and:(id)second {
    FakeHolder *made = [[[self alloc] init] autorelease];
    made->first = [first retain];
    made->second = [second retain];
    return made;
}
- (void)dealloc {
    [first release];
    [second release];
    [super dealloc];
}
@end

@interface _ANEBuffer : FakeHolder
@end
@implementation _ANEBuffer
+ (id)bufferWithIOSurfaceObject:(id)wrapper symbolIndex:(NSNumber *)index source:(long long)source {
    if (![wrapper isKindOfClass:[_ANEIOSurfaceObject class]] || [index intValue] != 0 ||
        source < 0 || source > 1) {
        fake_broken("bufferWithIOSurfaceObject: no surface, or another index or source");
    }
    return [self holding:wrapper and:nil];
}
@end

@interface _ANEIOSurfaceOutputSets : FakeHolder
@end
@implementation _ANEIOSurfaceOutputSets
+ (id)objectWithstatsSurRef:(IOSurfaceRef)stats outputBuffer:(NSArray *)buffers {
    if (!stats || stats->bytes < 64 || [buffers count] != 1 ||
        ![[buffers objectAtIndex:0] isKindOfClass:[_ANEBuffer class]]) {
        fake_broken("objectWithstatsSurRef: no surface, or no buffer");
    }
    return [self holding:buffers and:nil];
}
@end

@interface _ANEChainingRequest : FakeHolder
@end
@implementation _ANEChainingRequest
+ (id)chainingRequestWithInputs:(NSArray *)inputs
                     outputSets:(NSArray *)sets
                lbInputSymbolId:(id)loopIn
               lbOutputSymbolId:(id)loopOut
                 procedureIndex:(id)procedure
                   signalEvents:(NSArray *)events
              transactionHandle:(NSNumber *)handle
                 fwEnqueueDelay:(NSNumber *)delay
                   memoryPoolId:(NSNumber *)pool {
    if (![[inputs objectAtIndex:0] isKindOfClass:[_ANEBuffer class]] ||
        ![[sets objectAtIndex:0] isKindOfClass:[_ANEIOSurfaceOutputSets class]] || loopIn ||
        loopOut || procedure || [events count] != 0 || !handle || !delay || !pool) {
        fake_broken("chainingRequestWithInputs: other than what is valid");
    }
    return [self holding:inputs and:sets];
}
- (BOOL)validate {
    return YES;
}
@end

@interface _ANEClient : NSObject
@end
@implementation _ANEClient
+ (id)sharedConnection {
    return [[[self alloc] init] autorelease];
}
- (BOOL)prepareChainingWithModel:(id)model
                         options:(NSDictionary *)options
                     chainingReq:(id)request
                             qos:(unsigned int)qos
                           error:(NSError **)error {
    check_call(qos, options, error);
    if (![model isKindOfClass:[_ANEInMemoryModel class]] ||
        ![request isKindOfClass:[_ANEChainingRequest class]]) {
        fake_broken("prepareChainingWithModel: no model, or no request");
    }
    if (fake_fails(FAKE_CHAIN)) {
        on_command(error, FAKE_CHAIN);
        return NO;
    }
    if (!fake_chain) {
        explain(error, 15, @"ANEProgramChainingPrepare() Failed");
    }
    return fake_chain;
}
@end

/* ---- for tests of what is missing ------------------------------------------------------------ */

/* Has none of a model's methods. */
@interface FakeBareModel : NSObject
@end
@implementation FakeBareModel
@end

/* Has only the first. */
@interface FakeLesserModel : NSObject
+ (id)inMemoryModelWithDescriptor:(id)descriptor;
@end
@implementation FakeLesserModel
+ (id)inMemoryModelWithDescriptor:(id)descriptor {
    return descriptor;
}
@end
