/* Serves one request through TensorFlow's C API, as TF Serving's own loader does.

   serve FOLDER REQUEST INPUT LABEL SCORES [LIBRARY ...]

   REQUEST is a file: for each example its length as a 64-bit integer, then its bytes.
   INPUT, LABEL and SCORES are names of tensors as signatures have them, "op:0".
   Each LIBRARY has further ops. Prints a line for each example: the label, a tab, and
   the scores as C writes floats in hexadecimal, which loses nothing. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

#define MOST 1024

static TF_Status* status;

static void check(const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, TF_Message(status));
  exit(2);
}

static TF_Tensor* read_request(const char* path) {
  static char* texts[MOST];
  static uint64_t lengths[MOST];
  int64_t count = 0;
  FILE* file = fopen(path, "rb");
  if (!file) exit(3);
  while (count < MOST && fread(&lengths[count], sizeof(uint64_t), 1, file) == 1) {
    texts[count] = malloc(lengths[count] + 1);
    if (fread(texts[count], 1, lengths[count], file) != lengths[count]) exit(3);
    count++;
  }
  fclose(file);
  TF_Tensor* tensor =
      TF_AllocateTensor(TF_STRING, &count, 1, count * sizeof(TF_TString));
  TF_TString* strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; i++) {
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], texts[i], lengths[i]);
    free(texts[i]);
  }
  return tensor;
}

static TF_Output find(TF_Graph* graph, const char* name) {
  char op[4096];
  strncpy(op, name, sizeof(op) - 1);
  op[sizeof(op) - 1] = 0;
  char* colon = strrchr(op, ':');
  if (!colon) exit(4);
  *colon = 0;
  TF_Output output = {TF_GraphOperationByName(graph, op), atoi(colon + 1)};
  if (!output.oper) {
    fprintf(stderr, "no op %s\n", op);
    exit(4);
  }
  return output;
}

int main(int count, char** arguments) {
  if (count < 6) return 1;
  status = TF_NewStatus();
  for (int i = 6; i < count; i++) {
    TF_LoadLibrary(arguments[i], status);
    check(arguments[i]);
  }
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags,
                                                     1, graph, NULL, status);
  check("TF_LoadSessionFromSavedModel");
  TF_Output input = find(graph, arguments[3]);
  TF_Output outputs[] = {find(graph, arguments[4]), find(graph, arguments[5])};
  TF_Tensor* request = read_request(arguments[2]);
  TF_Tensor* answers[2];
  TF_SessionRun(session, NULL, &input, &request, 1, outputs, answers, 2, NULL, 0, NULL,
                status);
  check("TF_SessionRun");
  TF_TString* labels = TF_TensorData(answers[0]);
  float* scores = TF_TensorData(answers[1]);
  int64_t rows = TF_Dim(answers[1], 0), columns = TF_Dim(answers[1], 1);
  for (int64_t i = 0; i < rows; i++) {
    fwrite(TF_StringGetDataPointer(&labels[i]), 1, TF_StringGetSize(&labels[i]), stdout);
    for (int64_t j = 0; j < columns; j++)
      printf("%c%a", j ? ' ' : '\t', scores[i * columns + j]);
    printf("\n");
  }
  TF_CloseSession(session, status);
  check("TF_CloseSession");
  return 0;
}
