#!/usr/bin/env python3
"""Plants small faults, one at a time, and sees whether the test that must notice each one does.

    tests/mutate.py [--build build/release] [--only TEXT]   plants, builds what is needed, runs the test, puts back
    tests/mutate.py --check                                 every fault applies and stands in tests/README.md (ctest)
    tests/mutate.py --table                                 prints the table of tests/README.md

A fault is a text that stands once in a file of the tree, and another that takes its place. Who moves or rewrites
such a text finds --check failing and plants the fault anew, with the same meaning, so that the test keeps what
proves it.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "tests" / "README.md"


@dataclass
class Fault:
    what: str  # what is wrong then
    file: str
    text: str  # stands there once
    instead: str
    binary: str  # test_BINARY
    test: str  # Suite.Name, without instances and parameters


# fmt: off
FAULTS = [
    # --- quant ---
    Fault("a nibble of Q4_0 means one more", "quant/formats/q4_0.cc",
          "subtract_offset(code, 8, out->code)", "subtract_offset(code, 7, out->code)",
          "formats", "BlockFormat.DecodesRandomBytesAsDescribedWeightByWeight"),
    Fault("Q4_0 rounds down when it encodes", "quant/formats/q4_0.cc",
          "* inverse + 8.5f", "* inverse + 8.0f",
          "formats", "BlockFormatGolden.EncodesToTheReferencesBytes"),
    Fault("a better fit does not move the minimum", "quant/formats/searches_impl.h",
          "lowest = select8(better, offset, lowest);", "lowest = select8(both8(better, less8(zero, zero)), offset, lowest);",
          "formats", "Encode.EqualsThePlainTranscriptionByteForByte"),
    Fault("the output matrix is no finer than the rest", "quant/recipe.cc",
          "kind == kOutput ? recipe_.output : recipe_.base", "kind == kOutput ? recipe_.base : recipe_.base",
          "formats", "Recipe.TheOutputMatrixIsFinerTiedOrNot"),
    Fault("a bad weight is named by its place in the row", "quant/quantize.cc",
          "(source_row * columns + begin + bad)", "(0 * source_row + begin + bad)",
          "formats", "QuantizeRows.NamesTheFirstWeightThatIsNotANumber"),
    Fault("a tensor's data may end behind the file", "quant/gguf_reader.cc",
          "        end > bytes_.size()) {", "        end > bytes_.size() + 4096) {",
          "gguf", "GgufReader.FailsCleanlyOnEveryShorterFile"),
    Fault("a key may stand twice", "quant/gguf_reader.cc",
          "if (!key_index_.try_emplace(key, i).second)", "if (!key_index_.try_emplace(key, i).second && i == 0)",
          "gguf", "GgufReader.RefusesDuplicateKeys"),
    Fault("a file's magic is written first", "quant/gguf_writer.cc",
          "GgufWriter::GgufWriter(const std::string& target, const GgufPlan& plan, const GgufMetadata& metadata,\n"
          "                       bool overwrite)\n"
          "    : plan_(plan), metadata_(metadata), file_(target, plan.file_size, overwrite) {}",
          "GgufWriter::GgufWriter(const std::string& target, const GgufPlan& plan, const GgufMetadata& metadata,\n"
          "                       bool overwrite)\n"
          "    : plan_(plan), metadata_(metadata), file_(target, plan.file_size, overwrite) {\n"
          "  file_.write_at(0, std::span(reinterpret_cast<const uint8_t*>(kMagic.data()), kMagic.size()));\n"
          "}",
          "gguf", "GgufWriter.LeavesNothingThatLooksLikeAModelBeforeItIsFinished"),
    Fault("an unfinished output stays behind", "quant/output_file.cc",
          "  ::unlink(temporary_.c_str());\n  forget_unfinished", "  forget_unfinished",
          "files", "OutputFileBothWays.AFailedWriteKeepsTheOldTarget"),
    Fault("a rename that failed passes for done", "quant/output_file.cc",
          "if (error_number != 0) fail_errno(error_number, fmt::format(\"{}: cannot rename to it\"",
          "if (error_number == EPERM) fail_errno(error_number, fmt::format(\"{}: cannot rename to it\"",
          "files", "OutputFileBothWays.AFailedRenameLeavesNoTemporaryFile"),
    Fault("a special token's id may be the vocabulary's size", "quant/vocabulary.cc",
          "static_cast<size_t>(id) >= vocabulary.size())", "static_cast<size_t>(id) > vocabulary.size())",
          "gguf", "Vocabulary.ChecksSpecialIdsWhereverTheyCameFrom"),
    # --- kernels ---
    Fault("sets without a kernel of their own refuse the format", "kernels/cpu_device.cc",
          "if (kernel == nullptr) kernel = kernel_sets().front().set->find_matmul(tensor.dtype);", "",
          "cpu_device", "CpuDevice.FallsBackToTheReferenceAndSaysSoOncePerFormat"),
    Fault("a set leaves the K-quants to the scalar kernels", "kernels/avx2/avx2_set.cc",
          "&kSignedRows, &kTwoScalesRows,", "&kSignedRows,",
          "kernel_ops", "Dispatch.EverySetMultipliesEveryFormatItself"),
    Fault("the sums of a float product are cut after 255 columns", "kernels/scalar/matmul.cc",
          "for (size_t k = 0; k < args.k; ++k) {\n    float w;", "for (size_t k = 0; k < args.k && k < 255; ++k) {\n    float w;",
          "matmul", "ScalarMatmul.IsTheDotProductOfDecodedWeights"),
    Fault("a minimum is multiplied with half of the sums", "kernels/scalar/matmul.cc",
          "w.min[0] * s0 + w.min[1] * s1", "w.min[0] * s0 + w.min[0] * s1",
          "matmul", "ScalarMatmul.IsTheDotProductOfDecodedWeights"),
    Fault("RMSNorm weighs all values like the first", "kernels/scalar/ops.cc",
          "y[k] = (x[k] * r) * weight[k];", "y[k] = (x[k] * r) * weight[0];",
          "kernel_ops", "ScalarOps.RmsNormFollowsItsDefinition"),
    Fault("an activation's scale is of 128 steps", "kernels/scalar/ops.cc",
          "return amax / 127;", "return amax / 128;",
          "kernel_ops", "ScalarOps.QuantizerThresholdsAreExact"),
    Fault("RoPE turns the other way round", "kernels/scalar/ops.cc",
          "pair[1] = std::fma(x1, c, x0 * s);", "pair[1] = std::fma(x1, c, -(x0 * s));",
          "kernel_ops", "ScalarOps.RopeRotatesNeighboursAndLeavesTheRest"),
    Fault("SwiGLU of AVX2 and AVX-512 multiplies before it divides", "kernels/avx2/ops.cc",
          "return _mm256_mul_ps(over_one_plus_exp2q(g, g, -0x1.715476p0f), u);",
          "return over_one_plus_exp2q(_mm256_mul_ps(g, u), g, -0x1.715476p0f);",
          "kernel_ops", "EverySet.GatesLikeTheReference"),
    Fault("attention sees a key too few at the end of a segment", "kernels/scalar/attention.cc",
          "std::min(position + 1, (segment + 1) * kAttentionSegment)};",
          "std::min(position + 1, (segment + 1) * kAttentionSegment - 1)};",
          "kernel_ops", "ScalarAttention.IsTheSoftmaxWeightedMean"),
    Fault("segments are merged with the later one's weight", "kernels/scalar/attention.cc",
          "std::fma(to.acc[d], alpha, from.acc[d] * beta)", "std::fma(to.acc[d], beta, from.acc[d] * beta)",
          "kernel_ops", "ScalarAttention.IsTheSoftmaxWeightedMean"),
    Fault("the last of two tokens with a NaN is reported", "kernels/cpu_attention.cc",
          "while (row < seen && !first_bad.compare_exchange_weak(seen, row)) {",
          "while (row != seen && !first_bad.compare_exchange_weak(seen, row)) {",
          "cpu_device", "CpuDevice.KeepsTheFirstPlaceOfANanInKOrV"),
    Fault("a row of a panel is taken for the next one", "kernels/cpu_matrix.cc",
          "unpack_row_blocks(dtype(), panel, i % kPanelRows,", "unpack_row_blocks(dtype(), panel, (i + 1) % kPanelRows,",
          "cpu_device", "CpuDevice.GathersRowsAsTheFormatDecodesThem"),
    Fault("the cache's last segment is not counted", "kernels/device.cc",
          "const uint64_t all = (capacity - 1) / segment_keys() + 1;", "const uint64_t all = (capacity - 1) / segment_keys();",
          "cpu_device", "KvShape.CountsWholeSegmentsOrOneOfWholeTiles"),
    Fault("the environment decides before --isa", "kernels/dispatch.cc",
          "if (!forced.empty()) return named_set(forced, \"--isa\", features);\n  const char* environment = std::getenv(\"QUERN_ISA\");\n"
          "  if (environment != nullptr && *environment != '\\0') return named_set(environment, \"QUERN_ISA\", features);",
          "const char* environment = std::getenv(\"QUERN_ISA\");\n"
          "  if (environment != nullptr && *environment != '\\0') return named_set(environment, \"QUERN_ISA\", features);\n"
          "  if (!forced.empty()) return named_set(forced, \"--isa\", features);",
          "kernel_ops", "Dispatch.ObeysTheArgumentBeforeTheEnvironment"),
    Fault("a logarithm ends its series early", "kernels/math_f64.cc",
          "double p = 1.0 / 25;\n  for (int k = 23;", "double p = 1.0 / 15;\n  for (int k = 13;",
          "kernel_ops", "MathF64.LogarithmIsCloseToTheTrueOne"),
    Fault("passes of two threads meet on one device", "kernels/cpu_device.cc",
          "    const std::lock_guard lock(pass_);\n", "",
          "session", "Session.PassesOfTwoThreadsFollowOneAnother"),
    # --- the GPU ---
    Fault("rows of a fragment are swapped", "kernels/cuda/panel_formats.h",
          "a[1] = w.y & kNibbles;", "a[1] = w.x & kNibbles;",
          "cuda_kernels", "CudaProducts.EqualTheScalarSetForAnyNumberOfTokens"),
    Fault("a kernel multiplies what others have not fetched yet", "kernels/cuda/product_kernels.h",
          "    await_copies<1>();\n    sync_block();", "    await_copies<1>();",
          "cuda_kernels", "CudaProducts.EqualItInAnyOrderOfThreads"),
    Fault("copies are awaited a stage too late", "kernels/cuda/product_kernels.h",
          "    await_copies<1>();\n    sync_block();", "    await_copies<2>();\n    sync_block();",
          "cuda_kernels", "CudaProducts.EqualTheScalarSetForAnyNumberOfTokens"),
    Fault("the chain over groups reads the slot that is being written", "kernels/cuda/product_kernels.h",
          "const int slot = chunk % 2 * kFewChunk + u;", "const int slot = (chunk + 1) % 2 * kFewChunk + u;",
          "cuda_kernels", "CudaProducts.EqualItInAnyOrderOfThreads"),
    Fault("a product and a sum of the GPU are fused", "kernels/cuda/row_kernels.h",
          "add(a.x[i], mul(a.y[i], a.factor))", "fma(a.y[i], a.factor, a.x[i])",
          "cuda_kernels", "CudaOps.ElementwiseOperationsEqualTheScalarSets"),
    Fault("probabilities are used before all of them are there", "kernels/cuda/attention_kernels.h",
          "      sync_block();\n      // Weighted values", "      // Weighted values",
          "cuda_kernels", "CudaOps.AttentionEqualsTheScalarSets"),
    Fault("parts of segments are merged with the later one's factor", "kernels/cuda/attention_kernels.h",
          "sum = fma(sum, f.of_old, mul(part[d], f.of_new));", "sum = fma(sum, f.of_new, mul(part[d], f.of_new));",
          "cuda_kernels", "CudaOps.AttentionEqualsTheScalarSets"),
    Fault("staging memory is filled while it is on its way", "kernels/cuda/driver.cc",
          "if (staging.is_on_its_way) check(", "if (staging.is_on_its_way && next_ > 1) check(",
          "cuda_kernels", "CudaDriver.UploadsPieceByPiece"),
    Fault("a GPU that did not open keeps its context", "kernels/cuda/driver.cc",
          "    } catch (...) {\n      close();", "    } catch (...) {",
          "cuda_kernels", "CudaDriver.AnyCallThatFailsEndsInOneLineAndLeavesNothing"),
    Fault("a capture that failed is not ended", "kernels/cuda/driver.cc",
          "ended = driver_.capture_end(stream_, &graph);",
          "ended = launched != 0 ? launched : driver_.capture_end(stream_, &graph);",
          "cuda_kernels", "CudaDriver.AnyCallThatFailsEndsInOneLineAndLeavesNothing"),
    Fault("memory goes while launches that use it wait", "kernels/cuda/launch_queue.cc",
          "    flush();  // which may use it", "",
          "cuda_kernels", "CudaDevice.LaunchesThatComeAgainAreAGraphWithTheSameBits"),
    Fault("launches with other arguments are taken for the same", "kernels/cuda/launch_queue.cc",
          "return args == other.args &&", "return args.size() == other.args.size() &&",
          "cuda_kernels", "CudaDevice.LaunchesThatComeAgainAreAGraphWithTheSameBits"),
    Fault("positions overtake launches that read the old ones", "kernels/cuda/cuda_device.cc",
          "if (readers_flush_ == gpu_->n_flushes() + 1)", "if (readers_flush_ == 0)",
          "cuda_kernels", "CudaDevice.LaunchesThatComeAgainAreAGraphWithTheSameBits"),
    Fault("what another device has changed is still taken for current", "kernels/split_device.cc",
          ": std::min(n_valid, row);", ": n_valid;",
          "gpu", "OnGpu.LogitsAreTheCpusAtEverySplit"),
    Fault("the output's weights are not counted", "runtime/placement.cc",
          "ends && output.can_move ? output.weights : 0", "ends && output.can_move ? 0 : 0",
          "gpu", "Placement.FollowsTheTable"),
    # --- runtime ---
    Fault("memory is not asked for when a model is loaded", "runtime/model_loader.cc",
          "require_memory(plan, available, model_->context_, options_.context_option, session_bytes);",
          "static_cast<void>(session_bytes);",
          "cli", "MemoryLimit.OfTheAddressSpaceIsKept"),
    Fault("a session's scratch counts nothing", "runtime/engine.cc",
          "  return bytes + device.scratch_bytes(", "  return 0 * bytes + 0 * device.scratch_bytes(",
          "memory", "MemoryOfAModel.IsWhatThePlanSaysAndNeverMore"),
    Fault("the context that would fit is twice as long", "runtime/memory_plan.cc",
          "fits / 64 * 64)", "fits / 32 * 64)",
          "session", "MemoryPlan.NamesTheContextThatWouldFit"),
    Fault("nothing is left to evaluate of a known prompt", "runtime/engine.cc",
          "tokens.empty() ? 0 : tokens.size() - 1)", "tokens.size())",
          "session", "Session.ReusesTheLongestCommonPrefixButLeavesOneToken"),
    Fault("a token more than the context holds is taken", "runtime/engine.cc",
          "if (w.tokens.size() > model.context() - position)", "if (w.tokens.size() > model.context() - position + 1)",
          "session", "Session.RefusesMoreTokensThanTheContextHolds"),
    Fault("a text ends at the context's last but one position", "runtime/completion.cc",
          "} else if (sequence_.size() > context_) {", "} else if (sequence_.size() >= context_) {",
          "session", "Generate.StopsWhenTheContextIsFull"),
    Fault("half a character is text already", "runtime/completion.cc",
          ": decoder_->push(id);", ": decoder_->push(id) + decoder_->finish();",
          "sampler", "ACompletion.HoldsBackTheBytesOfACharacterUntilItIsWhole"),
    Fault("of equal logits the highest id is taken", "runtime/sampler.cc",
          "(a.logit == b.logit && a.id < b.id)", "(a.logit == b.logit && a.id > b.id)",
          "sampler", "Sampler.CutsToTheTopK"),
    Fault("a token is penalised as often as it was said", "runtime/sampler.cc",
          "const float logit = logits[id];", "const float logit = penalised_[id];",
          "sampler", "Sampler.PenalisesEachRecentTokenOnce"),
    Fault("tokens of plain characters may always come", "runtime/engine/constraint.cc",
          "if (takes_plain(set)) {", "if (takes_plain(set) || !rows_.empty()) {",
          "grammar", "AConstraint.MasksHoldExactlyTheTokensThatMayCome"),
    Fault("a text may end wherever a rule does", "runtime/engine/constraint.cc",
          "if (at.below == 0)\n        may_end_ = true;\n      else\n        work_.push_back(at.below);",
          "may_end_ = true;\n      if (at.below != 0) work_.push_back(at.below);",
          "grammar", "Gbnf.TakesTheTextsOfItsLanguageAndNoOthers"),
    Fault("oneOf is taken for anyOf", "runtime/engine/grammar_schema.cc",
          "if (keyword == \"oneOf\") document_.require_disjoint(operand, path);", "",
          "grammar", "Schemas.RefuseWithPlaceAndKeywordWhatTheyCannotKeep"),
    Fault("another property's key may be one of the schema's", "runtime/engine/grammar_json.cc",
          "if (!nodes[i].is_key) b_.add_empty(states[i], end);", "b_.add_empty(states[i], end);",
          "grammar", "Schemas.TakeWhatModelsWrite"),
    Fault("perplexity scores a token more", "runtime/perplexity.cc",
          "const uint64_t first = n_ctx / 2;", "const uint64_t first = n_ctx / 2 - 1;",
          "golden", "GoldenPerplexity.RunningValuesOfTinyMistral"),
    Fault("tokens that a stored base finds unlikely count nothing", "runtime/kl_statistics.cc",
          "constexpr double kThreshold = -16;", "constexpr double kThreshold = -6;",
          "comparison", "KlStatistics.OfAStoredBaseEqualAnIndependentComputation"),
    Fault("the error of a ratio forgets that both saw the same text", "runtime/kl_statistics.cc",
          "error_a * error_a + error_b * error_b - 2 * covariance", "error_a * error_a + error_b * error_b",
          "comparison", "KlStatistics.EqualAnIndependentComputation"),
    # --- convert ---
    Fault("rows of Q and K keep the checkpoint's order", "convert/tensor_transforms.cc",
          "map.push_back(first + pair);\n      map.push_back(first + half + pair);",
          "map.push_back(first + 2 * pair);\n      map.push_back(first + 2 * pair + 1);",
          "convert", "Convert.QuantizesTheRowsInGgufsOrder"),
    Fault("a tensor that nobody asked for is left out in silence", "convert/checkpoint.cc",
          "    if (reason.empty()) {\n      fail(ErrorCode::kMalformed,\n           \"{}: unknown tensor", "    if (reason == \"none\") {\n      fail(ErrorCode::kMalformed,\n           \"{}: unknown tensor",
          "convert", "Checkpoint.TensorsThatMayChangeTheFunctionAreRefusedByName"),
    Fault("nobody hears of a tensor that the index leaves out", "convert/checkpoint.cc",
          "if (!held.contains(tensor.info.name)) continue;", "if (!tensor.info.name.empty()) continue;",
          "convert", "Checkpoint.TensorThatTheIndexLeavesOutCountsAllTheSame"),
    Fault("tensors of a safetensors file may overlap", "convert/safetensors.cc",
          "if (tensor.begin != end) {", "if (tensor.begin > end) {",
          "convert", "Safetensors.RefusesWhatBreaksTheFormat"),
    # --- cli ---
    Fault("a number may be followed by anything", "cli/parse.cc",
          "error == std::errc() && stopped == end", "error == std::errc()",
          "cli_parts", "NumberParsing.RefusesWhatIsNotAllANumber"),
    Fault("a second signal is only noted", "quant/machine/stop_signal.cc",
          "if (in_scope && seen_signal == 0) {", "if (in_scope) {",
          "machine", "StopSignalDeathTest.InsideOfAScopeTheFirstSetsAFlagAndTheSecondEnds"),
    Fault("page cache counts as taken in a cgroup", "quant/machine/cgroup.cc",
          "*usage - std::min(*usage, cache)", "*usage",
          "machine", "CgroupMemory.OfVersionTwoIsTheLeastRoomOnTheWayUpAndPageCacheIsFree"),
    Fault("only a process's own cgroup counts", "quant/machine/cgroup.cc",
          "    if (slash == std::string::npos) return;\n", "    return;\n",
          "machine", "CgroupQuota.OfVersionTwoIsTheTightestOnTheWayUp"),
    Fault("a key of JSON may stand twice", "quant/json/json.cc",
          "return duplicate == keys.end() || stop_duplicate(*duplicate);", "return true;",
          "json", "Json.RefusesDuplicateKeysAtEveryLevel"),
    Fault("a loop's end is not waited for", "quant/parallel.cc",
          "  barrier(n_chunks == 0 ? kUnknownPatience : 3 * (Clock::now() - start) / n_chunks);\n",
          "  static_cast<void>(n_chunks == 0 ? kUnknownPatience : 3 * (Clock::now() - start) / n_chunks);\n",
          "files", "ThreadPool.WaitsForTheItemThatAnotherThreadIsIn"),
    Fault("a reader that has left is an error", "cli/main.cc",
          "catch (const OutputClosed&) {\n    return 0;", "catch (const OutputClosed&) {\n    return 5;",
          "cli", "Run.ReaderThatLeavesEndsItQuietly"),
    Fault("the newline at the end of a prompt's file stays", "cli/text_input.cc",
          "if (text->ends_with('\\n')) text->pop_back();", "",
          "cli", "Run.PromptMayComeFromAFileOrStdin"),
    Fault("only the last line of a message loses its carriage return", "cli/text_input.cc",
          "rule == TextRule::kMessage ? without_returns(bytes) : bytes", "bytes",
          "cli", "ChatLines.OnceReadsAsRunDoes"),
    Fault("a piece that became a control token is still cut out as sentencepiece does", "convert/added_tokens.cc",
          "(is_renamed || type != TokenType::kUserDefined)", "is_renamed",
          "convert", "AddedTokens.TakeUserDefinedPiecesOver"),
    Fault("a format's name counts for whatever template stands beside it", "cli/chat_encoding.cc",
          "if (vocabulary.chat_template.empty()) return", "if (!vocabulary.chat_format.empty()) return",
          "cli", "ChatTemplateCommand.NameOfAFormatCountsOnlyWithoutAnotherTemplate"),
    Fault("a message that is too long costs the turns before it", "cli/conversation.cc",
          "  if (ids.size() >= context_) {\n", "  if (ids.size() >= context_ && all.empty()) {\n",
          "cli_parts", "Conversation.AMessageTooLongByItselfCostsNoTurn"),
    # --- folders beside ---
    Fault("a set leaves formats with a minimum to the scalar kernels", "kernels/avx512/avx512_set.cc",
          "&kMinimumRows, &kTwoScalesRows,", "&kTwoScalesRows,",
          "kernel_ops", "Dispatch.EverySetMultipliesEveryFormatItself"),
    Fault("a set leaves all quantized formats to the scalar kernels", "kernels/avxvnni/avxvnni_set.cc",
          "&avx2::kFloatRows, &kQuantizedRows, &kCodebookRows", "&avx2::kFloatRows, &kCodebookRows",
          "kernel_ops", "Dispatch.EverySetMultipliesEveryFormatItself"),
    Fault("attention's sums keep a factor of the maximum before", "kernels/attention/softmax.h",
          "i < kSums ? L::fma(sum[i % kSums], scale, e)", "i < kSums ? L::add(sum[i % kSums], e)",
          "kernel_ops", "AttentionOfOtherSet.HasTheReferencesBitsAtEveryDepthAndWindow"),
    Fault("the error of a calibrated weight has the other sign", "quant/calibrated/calibrated_encoder.cc",
          "error[k] = target[k] - (code[k] * best.step - best.minimum);",
          "error[k] = (code[k] * best.step - best.minimum) - target[k];",
          "calibrated_encoder", "CalibratedEncoder.WithFeedbackLosesAThirdLessThanTheImportanceWeightedEncoder"),
    Fault("calibration's matrices are not damped", "runtime/calibration/calibration.cc",
          "gram[i * n + i] += damping;", "gram[i * n + i] += 0 * damping;",
          "calibration", "CalibratedModel.IsNeverWorseOnTheHeldOutTextThanImportanceAlone"),
    Fault("heads of Qwen3 have no norms", "runtime/arch/qwen3.cc",
          "    l.attention.declare_head_norms(parts, hparams_.norm_eps);\n", "",
          "architectures", "Architectures.EqualTransformersInFloat64"),
    Fault("what experts gave is taken in the order of the rows", "runtime/blocks/experts.cc",
          "device.expert_matmul(pass[gate], /*sorted=*/true, choice, {&down, 1});",
          "device.expert_matmul(pass[gate], /*sorted=*/false, choice, {&down, 1});",
          "architectures", "Architectures.EqualTransformersInFloat64"),
    Fault("of two merges of a pair the last one counts", "runtime/tokenizer/byte_pair_merger.cc",
          "if (table_[at].pair == UINT64_MAX) table_[at] = {pair, merge.rank, merge.merged};",
          "table_[at] = {pair, merge.rank, merge.merged};",
          "byte_pairs", "BytePairMerger.CountsTheFirstMergeOfAPair"),
    Fault("slices of a list step by one", "runtime/template/operators.cc",
          "return static_cast<size_t>(indices.start + i * indices.step); };",
          "return static_cast<size_t>(indices.start + i); };",
          "templates", "TemplateLanguage.IsJinja2sInEveryCornerTried"),
    Fault("whoever comes next gets what a slot holds", "runtime/engine/scheduler.cc",
          "{ return slot.owner == owner; }", "{ return slot.owner == owner || slot.n_prompt > 0; }",
          "prefix_cache", "SharedPrompts.OfAnotherOwnerAreTakenNeitherFromASlotNorFromTheCache"),
    Fault("a cancelled answer ends the pass of its neighbours", "runtime/engine/scheduler.cc",
          "stopping_ || std::all_of(in_pass_.begin()", "stopping_ || std::any_of(in_pass_.begin()",
          "scheduler", "Scheduler.APassEndsBeforeItsNextLayerOnceAllItsAnswersAreCancelled"),
    Fault("what ends a pass is not looked at after its first layer", "runtime/engine.cc",
          "if (stop.is_set()) return false;", "if (i == 0 && stop.is_set()) return false;",
          "session", "Session.StopLeavesOnlyFinishedMicroBatches"),
    Fault("a small model guesses on from states that it has changed", "runtime/engine/drafter.cc",
          "state_bytes() != 0 ? 1 : Guesser::kMostGuesses", "state_bytes() == 1 ? 1 : Guesser::kMostGuesses",
          "speculation", "Drafter.WithStatesGuessesOneTokenAtATime"),
    Fault("the cache's blocks are everybody's", "runtime/engine/prefix_cache.cc",
          ".add_values(std::span(owner))", ".add_values(std::span(owner).first(0))",
          "prefix_cache", "SharedPrompts.OfAnotherOwnerAreTakenNeitherFromASlotNorFromTheCache"),
    Fault("the beginning of nothing is a key", "cli/serve/access.cc",
          "given.size() == key.size() ? 0 : 1;", "given.size() <= key.size() ? 0 : 1;",
          "serve", "ServeAlone.KeysAreAskedForWhereThereAreSome"),
    # --- promises of README.md ---
    Fault("parts that have their names stay where the next one gets none", "quant/gguf_split_writer.cc",
          "    for (size_t i = published; i < paths_.size(); ++i) ::unlink(paths_[i].c_str());\n", "",
          "gguf", "GgufSplitWriter.AFailureInTheMiddleLeavesNoSetThatLooksComplete"),
    Fault("fifth bits come out of panels in another order", "quant/panel_layout.cc",
          "return exchange<0, 3>(exchange<0, 1>(exchange<0, 4>(exchange<0, 2>(bits))));",
          "return exchange<0, 3>(exchange<0, 4>(exchange<0, 1>(exchange<0, 2>(bits))));",
          "panel_layout", "PanelLayout.UnpackingGivesBackEveryNumberOfRows"),
    Fault("the eighth sign of a codebook's entry is forgotten", "quant/formats/codebooks.h",
          "return static_cast<uint8_t>(seven | static_cast<uint32_t>(std::popcount(seven) & 1) << 7);",
          "return static_cast<uint8_t>(seven);",
          "formats", "BlockFormatGolden.DecodesRandomBlocksToTheReferencesBits"),
    Fault("a mapped file that shrank ends the program without a word", "quant/machine/stop_signal.cc",
          "if (info->si_code == BUS_ADRERR) {", "if (info->si_code == BUS_ADRALN) {",
          "files", "MappedFileDeathTest.AFileThatShrankEndsTheProcessWithAMessageAndWithoutLeftovers"),
    Fault("JSON is written with bytes that are no UTF-8", "quant/json/json_writer.cc",
          "out += \"\\xEF\\xBF\\xBD\";", "out += c;",
          "json", "JsonWriter.EveryTextBecomesValidUtf8"),
    Fault("a router's bias counts in the weights of experts", "kernels/cpu_router.cc",
          "weights[s] = sigmoid(experts[s]);", "weights[s] = rank(experts[s]);",
          "cpu_device", "Router.BiasMovesTheChoiceOfSigmoidsAndNotTheirWeights"),
    Fault("a guess that was wrong is taken", "runtime/generate.cc",
          " && index + 1 < tokens.size() && tokens[index + 1] == *step.token;", " && index + 1 < tokens.size();",
          "speculation", "Speculates.WithoutChangingAToken"),
    Fault("a damaged block of a prompt is used", "runtime/engine/prefix_files.cc",
          "if (checksum_of(header, stored_ids, file.last(n_bytes)) != header.checksum) return",
          "if (checksum_of(header, stored_ids, file.last(n_bytes)) != header.checksum && n_bytes == 0) return",
          "prefix_files", "FilesOfBlocks.CountAsAbsentWhenDamagedWithOneLine"),
    Fault("the group may read what prompts came to", "runtime/engine/prefix_files.cc",
          "if ((status.st_mode & 077) != 0)", "if ((status.st_mode & 007) != 0)",
          "prefix_files", "FilesOfBlocks.RefuseAFolderThatOthersMayEnterOrThatIsNone"),
    Fault("columns are weighed by their sums, not by their squares", "runtime/importance_measurement.cc",
          "sums[i] += static_cast<double>(row[i]) * row[i];", "sums[i] += static_cast<double>(row[i]);",
          "engine", "ImportanceMeasurement.SumsTheSquaresOfWhatAMatrixIsMultipliedWith"),
    Fault("what a message adds to a template's words is the template's", "runtime/template/text.cc",
          "  else\n    runs_.push_back({bytes_.size(), origin});", "  else\n    runs_.back().end = bytes_.size();",
          "templates", "Origins.FollowEveryByte"),
    Fault("errors of a file are relative to itself, not to its base", "cli/tensor_diff.cc",
          "piece.squared_base += b * b;", "piece.squared_base += static_cast<double>(a[i]) * a[i];",
          "cli_parts", "TensorDiffs.MeasuresErrorAndLargestDifference"),
    Fault("pages of other sites may ask", "cli/serve/access.cc",
          "if (origin != nullptr && !allowed_origin(request) &&",
          "if (origin != nullptr && host == nullptr && !allowed_origin(request) &&",
          "serve", "Serve.PagesOfOthersMayNotAsk"),
]
# fmt: on


def table():
    rows = ["| fault | in | noticed by |", "|---|---|---|"]
    rows += [f"| {f.what} | `{f.file}` | `{f.test}` |" for f in FAULTS]
    return rows


def problems():
    """What is wrong with the list itself, a line each."""
    found = []
    sources = "\n".join(p.read_text() for p in sorted((ROOT / "tests").rglob("*_test.cc")))
    readme = README.read_text()
    for fault in FAULTS:
        path = ROOT / fault.file
        n = path.read_text().count(fault.text) if path.exists() else 0
        if n != 1:
            found.append(f"{fault.file}: expected the text of '{fault.what}' once, found it {n} times: plant it anew in tests/mutate.py")
        if fault.text == fault.instead:
            found.append(f"'{fault.what}' changes nothing")
        suite, name = fault.test.split(".")
        if not re.search(rf"TEST(_F|_P)?\(\s*{suite},\s*{name}\)", sources):
            found.append(f"'{fault.what}': there is no test {fault.test}")
    for row in table():
        if row not in readme:
            found.append(f"{README.relative_to(ROOT)}: expected this line of its table (tests/mutate.py --table): {row}")
    return found


def run_test(build, fault):
    """Whether the test passed, and the output's end. Raises where that says nothing: it cannot be built, is not there,
    took too long, or something else than the test failed."""
    of_program = fault.binary in ("cli", "serve")
    wanted = [f"test_{fault.binary}"] + (["quern"] if of_program else [])
    built = subprocess.run(["ninja", "-C", str(build), *wanted], capture_output=True, text=True)
    if built.returncode != 0:
        raise RuntimeError("does not build:\n" + built.stdout[-2000:])
    (binary,) = build.glob(f"tests/*/test_{fault.binary}")
    command = [str(binary), f"--gtest_filter={fault.test}:*/{fault.test}/*:{fault.test}/*:*/{fault.test}"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        raise RuntimeError("took more than 600 s") from None
    output = ran.stdout + ran.stderr
    if "[==========] Running 0 tests" in output:
        raise RuntimeError("no such test: " + " ".join(command))
    if ran.returncode > 0 and "[  FAILED  ]" not in output:
        raise RuntimeError("ended without a test that failed:\n" + output[-2000:])
    # Less than 0: a signal's number. A fault may well end the process.
    return ran.returncode == 0, output[-400:]


def plant(build, fault, sound):
    """'noticed', or what went wrong. sound: tests that are known to pass without a fault."""
    path = ROOT / fault.file
    before = path.read_text()
    try:
        if (fault.binary, fault.test) not in sound:
            passed, output = run_test(build, fault)
            if not passed:
                return "fails without the fault: " + output
            sound.add((fault.binary, fault.test))
        path.write_text(before.replace(fault.text, fault.instead))
        passed, output = run_test(build, fault)
    except RuntimeError as error:
        return str(error)
    finally:
        if path.read_text() != before:
            path.write_text(before)
    return "NOT NOTICED: " + output if passed else "noticed"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", type=pathlib.Path)
    parser.add_argument("--only", default="", help="faults whose words, file or test contain this")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print("\n".join(table()))
        return 0
    found = problems()
    if found:
        print("\n".join(found), file=sys.stderr)
        return 1
    if arguments.check:
        print(f"{len(FAULTS)} faults apply")
        return 0

    build = ROOT / arguments.build
    chosen = [f for f in FAULTS if any(arguments.only in text for text in (f.what, f.file, f.test))]
    if not chosen:
        print(f"no fault has '{arguments.only}' in its words, file or test", file=sys.stderr)
        return 1
    n_noticed, sound = 0, set()
    for number, fault in enumerate(chosen, 1):
        start = time.monotonic()
        outcome = plant(build, fault, sound)
        n_noticed += outcome == "noticed"
        print(f"{number}/{len(chosen)} {fault.file}: {fault.what}: {outcome} ({time.monotonic() - start:.0f} s)", flush=True)
    # What was built with a fault in it must not stay.
    wanted = {f"test_{fault.binary}" for fault in chosen} | ({"quern"} if any(f.binary in ("cli", "serve") for f in chosen) else set())
    subprocess.run(["ninja", "-C", str(build), *sorted(wanted)], capture_output=True, check=False)
    print(f"{n_noticed} of {len(chosen)} faults noticed")
    return 0 if n_noticed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
